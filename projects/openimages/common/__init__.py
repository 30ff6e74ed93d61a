"""What every part uses: errors for people, whole files, progress, processes, CSV columns."""
