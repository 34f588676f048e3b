//go:build unix

package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// fallbackAccount is an account that programs of others may have too.
const fallbackAccount = "nobody"

// account is the user as which Postgres runs.
type account struct {
	name     string
	uid, gid uint32
	// drop means that this process runs as root, and Postgres as another user.
	drop bool
	// ownsDir means that the data directory is the account's too, and not only the cluster in it.
	ownsDir bool
}

// chooseAccount decides who runs Postgres: the owner of the data directory, whoever starts the panel.
// Only where that is root, as whom Postgres does not run, it is the owner of the cluster, which need
// not exist yet, or an account of the system.
func chooseAccount(root, cluster string) (account, error) {
	dir, err := os.Stat(root)
	if err != nil {
		return account{}, err
	}
	owner := ownerOf(dir)
	if uid := uint32(os.Geteuid()); uid != 0 {
		if owner.uid != uid && owner.uid != 0 {
			return account{}, fmt.Errorf("%s belongs to the user %s: run as that user (`sudo -u %s …`) or as root",
				root, owner.name, owner.name)
		}
		return account{name: userName(uid), uid: uid, gid: uint32(os.Getegid())}, nil
	}
	if owner.uid != 0 {
		owner.drop, owner.ownsDir = true, true
		return owner, nil
	}
	info, err := os.Stat(cluster)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return account{}, err
	}
	exists := err == nil
	// The owner of an existing cluster keeps it, even if a user postgres was created since.
	if exists && ownerOf(info).uid != 0 {
		owner := ownerOf(info)
		owner.drop = true
		return owner, nil
	}
	for _, name := range []string{"eclitunneld", "postgres", fallbackAccount} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{name: name, uid: uint32(uid), gid: uint32(gid), drop: true}, nil
	}
	return account{}, errors.New("PostgreSQL does not run as root, and none of the users eclitunneld, postgres and nobody exists")
}

func ownerOf(info fs.FileInfo) account {
	stat := info.Sys().(*syscall.Stat_t)
	return account{name: userName(stat.Uid), uid: stat.Uid, gid: stat.Gid}
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	found, err := user.LookupId(id)
	if err != nil {
		return id
	}
	return found.Username
}

// command returns a command that runs as the account. Its environment contains no variables that affect
// Postgres (PGDATA, PGOPTIONS) and no secrets.
func (a account) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...) //nolint:noctx // run and stop end it: by signals it handles, and its children with it
	cmd.Env = []string{"LC_ALL=C", "TZ=GMT"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if a.drop {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
	}
	return cmd
}

// chown makes the account the owner of a file or directory.
func (a account) chown(path string) error {
	if !a.drop {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// checkSearchable checks that the account has search permission on dir and all its parents, which may
// lie in a home directory that only root may enter. dir must not contain symbolic links.
func (a account) checkSearchable(dir string) error {
	if !a.drop {
		return nil
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		owner, searchable := ownerOf(info), info.Mode()&0o001 != 0
		switch {
		case owner.uid == a.uid:
			searchable = info.Mode()&0o100 != 0
		case owner.gid == a.gid:
			searchable = info.Mode()&0o010 != 0
		}
		if !searchable {
			return fmt.Errorf("PostgreSQL runs as the user %s, who may not enter the directory %s (%s): "+
				"run `chmod o+x %s`, or use another data directory", a.name, dir, info.Mode(), dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
