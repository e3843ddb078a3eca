"""An env as one archive: written, stored, unpacked."""
