//go:build unix

package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

const (
	groupAccess  = 0o060
	groupWrite   = 0o020
	othersAccess = 0o006
)

// examine says who else can read or change a file, by its mode.
func examine(f *os.File) (exposure, error) {
	info, err := f.Stat()
	if err != nil {
		return exposure{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	// A pipe keeps nothing that others could read, and an empty file has no secret.
	if !ok || !info.Mode().IsRegular() || info.Size() == 0 || mode&(groupAccess|othersAccess) == 0 {
		return exposure{}, nil
	}
	own := int(stat.Uid) == os.Geteuid()
	others := mode&othersAccess != 0
	byGroup := !own && (stat.Gid == 0 || inGroup(stat.Gid)) // As this process does: Kubernetes, systemd.
	granted := own && stat.Uid == 0 && stat.Gid != 0 && mode&groupWrite == 0
	// Kubernetes sets the modes of a volume with an fsGroup again at each start.
	if !others && (byGroup || granted || sharedByDirectory(f.Name(), stat.Gid)) {
		return exposure{}, nil
	}
	e := exposure{who: "others can read or change", mode: fmt.Sprintf("mode %#o", mode)}
	if !others {
		e.who = fmt.Sprintf("the group %d can read or change", stat.Gid)
	}
	switch err := tryPrivate(f, info.Mode()); {
	case err == nil:
		e.fix = "chmod 600 " + Quote(f.Name())
	case errors.Is(err, syscall.EPERM) && !own && os.Geteuid() != 0 && others && !lacksModes(f):
		e.fix = fmt.Sprintf("sudo chgrp %d %[2]s && sudo chmod 640 %[2]s", os.Getegid(), Quote(f.Name()))
	case !others && (stat.Gid == 0 || inGroup(stat.Gid)):
		return exposure{}, nil
	}
	return e, nil
}

// errNoEffect means that a change of mode had no effect.
var errNoEffect = errors.New("chmod has no effect")

// tryPrivate returns an error unless chmod would keep others out of a file. Only a try
// tells: some file systems take a mode and forget it. The file keeps its mode, which is
// not this program's to change.
func tryPrivate(f *os.File, mode fs.FileMode) error {
	if err := f.Chmod(mode &^ 0o077); err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&(groupAccess|othersAccess) != 0 {
		err = errNoEffect
	}
	_ = f.Chmod(mode) // If this fails, nobody else can read it.
	return err
}

// inGroup reports whether this process belongs to a group.
func inGroup(gid uint32) bool {
	groups, err := os.Getgroups()
	return int(gid) == os.Getegid() || err == nil && slices.Contains(groups, int(gid))
}

// sharedByDirectory reports whether the directory of a file gives its files to a group of
// this process, as volumes of Kubernetes do that have an fsGroup.
func sharedByDirectory(path string, gid uint32) bool {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil || info.Mode()&fs.ModeSetgid == 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Gid == gid && inGroup(gid)
}
