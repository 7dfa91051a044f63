"""HTTP server: OpenAI's interface for text, pictures and embeddings, and a typed one for everything else."""
