"""Answers and streams of the APIs, made from the events of a turn."""
