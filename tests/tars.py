"""Tars for the tests of indexes and manifests. Their images cannot be decoded."""

import io
import tarfile

from timix_pl.data.shards.writer import ShardWriter


def write_tar(path, members):
    """A tar of these members, content by name."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder, num_samples=4):
    """Shards of two samples each, with indexes and a manifest."""
    with ShardWriter(folder, samples_per_shard=2) as writer:
        for i in range(num_samples):
            writer.write(f"k{i}", b"image", "jpg", captions=["a"])
    return folder
