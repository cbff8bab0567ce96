"""The main job: ``python -m benchmarks``."""

from benchmarks.bench_bundled import main

if __name__ == "__main__":
    main()
