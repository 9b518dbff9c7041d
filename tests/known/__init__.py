"""A matrix of models with known answers times algorithms."""
