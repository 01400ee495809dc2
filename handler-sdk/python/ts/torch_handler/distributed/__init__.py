"""Base handlers of models that are spread over several devices."""
