"""The contrastive losses, one file each."""
