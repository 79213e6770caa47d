"""A run as one HTML page: what there is to tell of it, as a verdict, figures and tables."""
