"""Runners: blocks worked on by processes of this machine or by Apache Beam."""
