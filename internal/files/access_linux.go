package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// lacksModes reports whether the file system of f has no modes of its own: every file has
// the mode that was given when it was mounted.
func lacksModes(f *os.File) bool {
	const ntfs, ntfs3 = 0x5346544e, 0x7366746e // fs/ntfs and fs/ntfs3; x/sys has no names.
	var stat unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &stat) != nil {
		return false
	}
	switch uint32(stat.Type) {
	case unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, ntfs, ntfs3:
		return true
	}
	return false
}
