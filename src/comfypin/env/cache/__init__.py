"""What envs share on one machine: installed packages, byte-code, notes of probes."""
