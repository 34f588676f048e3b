// Package postgres runs a private Postgres server from the machine's installed binaries. It is the
// panel's default database.
//
// A [Server] owns its data directory:
//
//	DataDir/
//	  lock          held by the process that uses the directory
//	  cluster/      Postgres' data directory, mode 0700
//	  cluster.new/  the same while initdb creates it; a leftover is deleted
//	  run/          the Unix socket, mode 0700
//	  postgres.log  Postgres' log
//
// The server listens only on that socket. It ends with the process that started it, even if that
// process is killed: on Linux at once, elsewhere at the next start. The next start also recovers from
// a crash. A data directory of another major version of Postgres is rejected and not modified.
//
// Postgres runs as the owner of the data directory, whether that user starts it or root, and what root
// makes there is the owner's. A directory that root itself has, started by root, is for the owner of an
// existing cluster, otherwise for the first of the users eclitunneld, postgres and nobody that exists;
// Postgres itself refuses to run as root.
//
// Postgres admits root and that owner alone, by what the kernel says about who connects (peer
// authentication, with a map in pg_ident.conf): neither the permissions of the socket nor a password
// decide. Each start writes both files, and gives the panel a role that owns its database and is no
// superuser; clusters of earlier versions, which trusted everybody at the socket, are changed.
package postgres

import (
	"errors"
	"log/slog"
)

var (
	// ErrNotInstalled means that no usable Postgres binaries were found. The message explains how to
	// install them.
	ErrNotInstalled = errors.New("PostgreSQL is not installed")
	// ErrOtherVersion means that the data belongs to a major version of Postgres that is not installed.
	ErrOtherVersion = errors.New("database was created by another major version of PostgreSQL")
	// ErrInUse means that another process uses the data directory.
	ErrInUse = errors.New("data directory is in use")
	// ErrNoDatabase means that the data directory holds no database, with Options.MustExist.
	ErrNoDatabase = errors.New("there is no database")
)

// Options configures a [Server].
type Options struct {
	// DataDir is the directory described above. It is created if it is missing. Required.
	DataDir string
	// BinDir contains initdb and postgres. If it is empty, they are searched for in PATH and then in
	// the directories of Linux distributions and Homebrew, newest version first. Existing data needs
	// its own major version.
	BinDir string
	// MustExist makes Start fail with ErrNoDatabase, and create nothing, where there is no database.
	MustExist bool
	// Settings are parameters that override postgresql.conf. nil means none.
	Settings map[string]string
	// Logger logs start, stop and recovery. nil discards.
	Logger *slog.Logger
}
