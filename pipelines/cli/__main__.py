"""Entry point of ``python -m pipelines.cli``, the same as ``dsmoe``."""

from __future__ import annotations

from pipelines.cli import main

if __name__ == "__main__":
    main()
