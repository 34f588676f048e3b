// Package postgres runs a private Postgres from the machine's own binaries: the panel's default
// where the operator names no database.
//
// A [Server] owns its data directory:
//
//	DataDir/
//	  lock          held by the process that uses the directory
//	  cluster/      Postgres' own data directory, mode 0700
//	  cluster.new/  the same while initdb makes it; a leftover is discarded
//	  run/          the unix socket, mode 0700
//	  postgres.log  what Postgres says
//
// The server listens on nothing but that socket. It ends with the process that started it, even if
// that is killed (on Linux at once; elsewhere the next start ends it), and what a crash left behind
// is recovered at the next start. A directory made by another major version of Postgres is refused
// and left as it is.
//
// Started by root, Postgres runs as the owner of an existing cluster, otherwise as the user
// postgres, otherwise as nobody; Postgres itself refuses to run as root. Started by anybody else it
// runs as that user.
package postgres

import (
	"errors"
	"log/slog"
)

var (
	// ErrNotInstalled means that no usable Postgres binaries were found. Its message says how to
	// get them.
	ErrNotInstalled = errors.New("PostgreSQL is not installed")
	// ErrOtherVersion means that the data belongs to a major version of Postgres that is not here.
	ErrOtherVersion = errors.New("database was made by another major version of PostgreSQL")
	// ErrInUse means that another process uses the data directory.
	ErrInUse = errors.New("data directory is in use")
)

// Options configure a [Server].
type Options struct {
	// DataDir is the directory described above. It is made where it is missing. Required.
	DataDir string
	// BinDir holds initdb and postgres. Empty means to search: PATH first, then where Linux
	// distributions and Homebrew put them, the newest first; for existing data, its version.
	BinDir string
	// Settings are parameters of postgresql.conf that overrule the file. nil means none.
	Settings map[string]string
	// Logger hears of start, stop and recovery. nil discards.
	Logger *slog.Logger
}
