"""Detectors of anomalies: score components fitted in closed form to the features of a backbone."""
