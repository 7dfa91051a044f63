"""Vector index and retrieval: texts, pictures or latents, found by similarity, by words, or by both."""
