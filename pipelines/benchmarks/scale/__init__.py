"""What a cycle costs besides the network, and what more processes bring: Ray and torchrun."""
