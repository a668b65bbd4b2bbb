"""Scoring of files in bulk, in bounded memory; an interrupted run can be resumed."""
