"""Training of the transformer, the residual MLP and the text model."""
