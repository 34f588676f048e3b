//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// minMajor is the oldest major version that supports the panel's schema.
const minMajor = 13

const versionLimit = 10 * time.Second

// installDirs are directories outside PATH in which packages install the binaries.
var installDirs = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // packages of postgresql.org for Fedora, RHEL
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	"/opt/homebrew/opt/postgresql/bin",
	"/usr/local/opt/postgresql/bin",
}

const howToInstall = "install it (Debian, Ubuntu: apt install postgresql; Fedora, RHEL: dnf install postgresql-server; " +
	"macOS: brew install postgresql) or set ECLITUNNEL_DATABASE_URL to use your own server"

// binaries is a directory that contains initdb and postgres.
type binaries struct {
	dir     string
	major   int
	version string
}

// findBinaries returns binaries of a major version, or of any supported one if major is 0. It searches
// binDir or, if that is empty, PATH and installDirs. The account must be able to run them.
func findBinaries(ctx context.Context, binDir string, major int, as account) (binaries, error) {
	candidates := []string{binDir}
	if binDir == "" {
		candidates = candidateDirs(os.Getenv("PATH"), installDirs)
	}
	var found, problems []string
	for _, dir := range candidates {
		bin, err := inspect(ctx, dir, as)
		switch {
		case ctx.Err() != nil:
			return binaries{}, ctx.Err()
		case as.drop && errors.Is(err, syscall.EPERM):
			return binaries{}, fmt.Errorf("run PostgreSQL as the user %s: the panel runs as root without the right to become another user: "+
				"give it the capabilities CAP_SETUID and CAP_SETGID, run it as that user, or set ECLITUNNEL_DATABASE_URL to use a server you have", as.name)
		case err != nil:
			problems = append(problems, fmt.Sprintf("%s: %v", dir, err))
		case bin.major < minMajor:
			problems = append(problems, fmt.Sprintf("%s: version %s is older than %d", dir, bin.version, minMajor))
		case major == 0 || bin.major == major:
			return bin, nil
		default:
			found = append(found, fmt.Sprintf("%s in %s", bin.version, dir))
		}
	}
	if len(found) > 0 {
		return binaries{}, fmt.Errorf("%w: the data has version %d, installed is %s; the data was not modified; "+
			"install PostgreSQL %d, or move the data with pg_dump and start with an empty directory",
			ErrOtherVersion, major, strings.Join(found, ", "), major)
	}
	where := "PATH, " + strings.Join(installDirs, ", ")
	if binDir != "" {
		where = binDir
	}
	if len(problems) > 0 {
		where += "; " + strings.Join(problems, "; ")
	}
	return binaries{}, fmt.Errorf("%w (searched %s): %s", ErrNotInstalled, where, howToInstall)
}

// candidateDirs lists the directories that contain both programs: those of the search path in order,
// then those that match the patterns, highest version first.
func candidateDirs(searchPath string, patterns []string) []string {
	var dirs []string
	add := func(dir string) {
		// PATH may contain a link to one program. initdb needs the others, in the directory of the
		// link's target.
		program, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			return
		}
		dir = filepath.Dir(program)
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil || slices.Contains(dirs, dir) {
			return
		}
		dirs = append(dirs, dir)
	}
	for _, dir := range filepath.SplitList(searchPath) {
		if filepath.IsAbs(dir) {
			add(dir)
		}
	}
	for _, pattern := range patterns {
		// The patterns are constants: the only error Glob has is a malformed one.
		matches, _ := filepath.Glob(pattern)
		slices.SortStableFunc(matches, func(a, b string) int { return versionInPath(b) - versionInPath(a) })
		for _, dir := range matches {
			add(dir)
		}
	}
	return dirs
}

var pathVersion = regexp.MustCompile(`(\d+)/bin$`)

func versionInPath(dir string) int {
	match := pathVersion.FindStringSubmatch(dir)
	if match == nil {
		return 0
	}
	version, err := strconv.Atoi(match[1])
	if err != nil {
		return 0
	}
	return version
}

// reportedVersion matches the output of --version: "postgres (PostgreSQL) 15.14 (Debian 15.14-0)".
var reportedVersion = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// inspect runs the binaries as the account to get their version.
func inspect(ctx context.Context, dir string, as account) (binaries, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return binaries{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	var output bytes.Buffer
	cmd := as.command(filepath.Join(dir, "postgres"), "--version")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := run(ctx, cmd); err != nil {
		return binaries{}, fmt.Errorf("postgres --version: %w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	match := reportedVersion.FindStringSubmatch(output.String())
	if match == nil {
		return binaries{}, fmt.Errorf("unexpected output of postgres --version: %q", output.String())
	}
	major, err := strconv.Atoi(match[2])
	if err != nil {
		return binaries{}, err
	}
	return binaries{dir: dir, major: major, version: match[1]}, nil
}
