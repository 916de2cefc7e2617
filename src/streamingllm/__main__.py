"""The command line as `python -m streamingllm`."""

from streamingllm.cli import main

if __name__ == "__main__":
    main()
