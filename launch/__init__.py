"""Launchers of sweeps."""
