package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/migrations"
	"github.com/eclitunnel/eclitunnel/db/postgres"
)

const (
	testURL   = "ECLITUNNEL_TEST_DATABASE_URL"
	dirPrefix = "eclitunnel-dbtest-"
)

// server is the Postgres server that the tests of this process share. It has a migrated template
// database, of which each test gets a copy.
type server struct {
	url      string
	template string
	private  *postgres.Server // nil if the server is not private
	dir      string           // of the private server
}

var (
	sharedMu sync.Mutex
	shared   *server
)

func sharedServer(ctx context.Context) (*server, error) {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if shared != nil {
		return shared, nil
	}
	s := &server{url: os.Getenv(testURL)}
	if s.url == "" {
		if err := s.startPrivate(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.makeTemplate(ctx); err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	shared = s
	return s, nil
}

func stopServer() error {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if shared == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := shared.stop(ctx)
	shared = nil
	return err
}

func (s *server) stop(ctx context.Context) error {
	if s.private == nil {
		return nil
	}
	return errors.Join(s.private.Stop(ctx), os.RemoveAll(s.dir))
}

// startPrivate starts a server that is fast and loses its data in a crash.
func (s *server) startPrivate(ctx context.Context) error {
	removeAbandoned()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return err
	}
	// Postgres does not run as root, and must be able to enter the directory.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	s.dir = dir
	s.private, err = postgres.Start(ctx, postgres.Options{DataDir: dir, Settings: map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
		"autovacuum": "off", "max_connections": "200",
	}})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.url = s.private.SuperuserURL()
	return nil
}

// removeAbandoned removes the directories of processes that ended without [Main], for example because
// they were killed. Their servers have ended with them.
func removeAbandoned() {
	// The pattern is a constant: the only error Glob has is a malformed one.
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		number, err := strconv.Atoi(pid)
		if err != nil {
			continue
		}
		process, err := os.FindProcess(number)
		if err == nil && errors.Is(process.Signal(syscall.Signal(0)), os.ErrProcessDone) {
			_ = os.RemoveAll(dir) // another user's stays
		}
	}
}

// makeTemplate creates the template database, which is named after its migrations, unless another
// process has created it on the same server.
func (s *server) makeTemplate(ctx context.Context) error {
	digest, err := migrationsDigest()
	if err != nil {
		return err
	}
	s.template = "eclitunnel_template_" + digest
	return s.admin(ctx, func(conn *sql.Conn) error {
		// The lock ends with the connection.
		if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(hashtext($1))`, s.template); err != nil {
			return err
		}
		var exists bool
		err := conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, s.template).Scan(&exists)
		if err != nil || exists {
			return err
		}
		// It is renamed once it is complete, so that a process that dies here leaves no incomplete
		// template.
		unfinished := s.template + "_unfinished"
		for _, statement := range []string{`DROP DATABASE IF EXISTS %s WITH (FORCE)`, `CREATE DATABASE %s`} {
			if _, err := conn.ExecContext(ctx, fmt.Sprintf(statement, pq.QuoteIdentifier(unfinished))); err != nil {
				return err
			}
		}
		if err := migrate(ctx, s.databaseURL(unfinished)); err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, fmt.Sprintf(`ALTER DATABASE %s RENAME TO %s`,
			pq.QuoteIdentifier(unfinished), pq.QuoteIdentifier(s.template)))
		return err
	})
}

func migrate(ctx context.Context, url string) error {
	d, err := db.Open(ctx, db.Options{URL: url})
	if err != nil {
		return err
	}
	return errors.Join(d.Migrate(ctx), d.Close())
}

func migrationsDigest() (string, error) {
	hash := fnv.New64a()
	err := fs.WalkDir(migrations.FS, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(migrations.FS, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(hash, "%s\n%s\n", path, content)
		return err
	})
	return hex.EncodeToString(hash.Sum(nil)), err
}

func (s *server) createDatabase(ctx context.Context) (string, error) {
	name := "eclitunnel_test_" + strings.ToLower(rand.Text())
	return name, s.admin(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`,
			pq.QuoteIdentifier(name), pq.QuoteIdentifier(s.template)))
		return err
	})
}

func (s *server) dropDatabase(ctx context.Context, name string) error {
	return s.admin(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, fmt.Sprintf(`DROP DATABASE %s WITH (FORCE)`, pq.QuoteIdentifier(name)))
		return err
	})
}

// admin runs fn on a new connection. It leaves no connection open, which leak checks would report.
func (s *server) admin(ctx context.Context, fn func(conn *sql.Conn) error) error {
	connector, err := pq.NewConnector(s.url)
	if err != nil {
		return err
	}
	connections := sql.OpenDB(connector)
	conn, err := connections.Conn(ctx)
	if err != nil {
		return errors.Join(err, connections.Close())
	}
	return errors.Join(fn(conn), conn.Close(), connections.Close())
}

// databaseURL is the server's URL with another database.
func (s *server) databaseURL(name string) string {
	if u, err := url.Parse(s.url); err == nil && u.Scheme != "" {
		u.Path = "/" + name
		return u.String()
	}
	// A DSN, in which the last of two equal keys takes effect.
	return s.url + " dbname=" + name
}
