"""Class books: what each defect looks like, in words, with versions and sources."""
