"""Read models from GGUF files: header, configuration, names, weights, tokenizer."""
