"""The directory of a run: records, fingerprints, its copy on a store."""
