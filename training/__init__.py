"""Training masked autoencoders: recipes, the loop, checkpoints and logs; imports no framework."""
