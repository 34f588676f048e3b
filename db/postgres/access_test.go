//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

// openSocket lets everybody reach a server's socket, as a mistaken chmod would.
func openSocket(t *testing.T, dir string, server *postgres.Server) {
	t.Helper()
	u, err := url.Parse(server.URL())
	check(t, err)
	socketDir := u.Query().Get("host")
	check(t, os.Chmod(dir, 0o755))
	check(t, os.Chmod(socketDir, 0o755))
	check(t, os.Chmod(filepath.Join(socketDir, ".s.PGSQL.5432"), 0o777))
}

// dialer connects as other users, by this program.
type dialer struct{ program string }

func newDialer(t *testing.T) dialer {
	t.Helper()
	program, err := os.Executable()
	check(t, err)
	return dialer{copyProgram(t, program)}
}

// dial connects as a user of this machine, nil for root, and returns the role or why it was refused.
func (d dialer) dial(t *testing.T, as *syscall.Credential, url string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), d.program)
	cmd.Env = []string{dialURL + "=" + url}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	output, err := cmd.CombinedOutput()
	check(t, err)
	return strings.TrimSpace(string(output))
}

// wantRefused checks that a user who reaches the socket becomes no role of the database.
func (d dialer) wantRefused(t *testing.T, name string, server *postgres.Server) {
	t.Helper()
	for _, url := range []string{
		server.URL(), server.SuperuserURL(), strings.Replace(server.URL(), "eclitunneld@", name+"@", 1),
	} {
		if said := d.dial(t, credential(t, name), url); !strings.Contains(said, "authentication failed") {
			t.Errorf("%s at %s: %s", name, url, said)
		}
	}
}

func TestStart_AdmitsItsUserAndRootAlone(t *testing.T) {
	needRoot(t)
	dialer := newDialer(t)
	for name, dir := range map[string]func(t *testing.T) string{
		"in a directory of root, with the socket elsewhere": func(t *testing.T) string {
			return filepath.Join(sharedDir(t), strings.Repeat("long/", 30))
		},
		"in a directory of nobody": func(t *testing.T) string {
			dir, us := sharedDir(t), nobody(t)
			check(t, os.Chown(dir, int(us.Uid), int(us.Gid)))
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dir(t)
			server := start(t, postgres.Options{DataDir: dir, Settings: noSync})
			openSocket(t, dir, server)
			owner := ownerOf(t, filepath.Join(dir, "cluster"))
			for _, as := range []*syscall.Credential{nil, owner} {
				if said := dialer.dial(t, as, server.URL()); said != "eclitunneld <nil>" {
					t.Errorf("user %v: %s", as, said)
				}
			}
			for _, other := range []string{"nobody", "daemon"} {
				if credential(t, other).Uid != owner.Uid {
					dialer.wantRefused(t, other, server)
				}
			}
		})
	}
}

func TestStart_MendsWhomAClusterAdmits(t *testing.T) {
	needRoot(t)
	dialer, dir := newDialer(t), sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	stop(t, start(t, options))
	cluster := filepath.Join(dir, "cluster")
	hba, ident, conf := filepath.Join(cluster, "pg_hba.conf"), filepath.Join(cluster, "pg_ident.conf"), filepath.Join(cluster, "postgresql.conf")
	settings, err := os.ReadFile(conf)
	check(t, err)
	const trust = "# of an earlier version\nlocal all all trust\nlocal replication all trust\n"
	for name, change := range map[string]func(){
		"trust":                     func() { check(t, os.WriteFile(hba, []byte(trust), 0o600)) },
		"passwords":                 func() { check(t, os.WriteFile(hba, []byte("local all all scram-sha-256\n"), 0o600)) },
		"no files":                  func() { check(t, os.Remove(hba)); check(t, os.Remove(ident)) },
		"a map that admits nobody":  func() { check(t, os.WriteFile(ident, []byte("eclitunnel nobody eclitunnel\n"), 0o600)) },
		"a link":                    func() { check(t, os.Remove(hba)); check(t, os.Symlink("/dev/null", hba)) },
		"other files in the config": func() { check(t, os.WriteFile(conf, fmt.Appendf(settings, "\nhba_file = '/etc/passwd'\n"), 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			change()
			server := start(t, options)
			openSocket(t, dir, server)
			if said := dialer.dial(t, nil, server.URL()); said != "eclitunneld <nil>" {
				t.Errorf("root: %s", said)
			}
			dialer.wantRefused(t, "nobody", server)
			stop(t, server)
			if kept, err := os.ReadFile(hba + ".before"); name == "trust" && (err != nil || string(kept) != trust) {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
	before := listing(t, hba)
	maps.Copy(before, listing(t, ident))
	stop(t, start(t, options))
	after := listing(t, hba)
	maps.Copy(after, listing(t, ident))
	if !maps.Equal(before, after) {
		t.Errorf("a start without need changed %v to %v", before, after)
	}

	// Postgres finds no name for the panel's own user, as in a container: it must go on.
	unnamed := &syscall.Credential{Uid: 54321, Gid: 54321}
	check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(unnamed.Uid), int(unnamed.Gid)))
	}))
	panel := startPanel(t, dir, unnamed)
	check(t, panel.stdin.Close())
	check(t, panel.cmd.Wait())

	// A directory service's name for a user may be the one that Postgres sees.
	useNames(t)
	server := start(t, options)
	if content, err := os.ReadFile(ident); err != nil || !strings.Contains(string(content), `"root" eclitunneld`) ||
		!strings.Contains(string(content), `"of a directory" eclitunneld`) {
		t.Errorf("names: %s, %v", content, err)
	}

	// What Postgres refuses once it would refuse again: the start must not wait.
	query(t, server.SuperuserURL(), `ALTER ROLE eclitunnel NOLOGIN; SELECT 'ok'`)
	stop(t, server)
	if err := startError(t, options); !strings.Contains(err.Error(), "not permitted to log in") || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("refused: %v", err)
	}
}

// useNames has a directory service know each user by another name than /etc/passwd does.
func useNames(t *testing.T) {
	t.Helper()
	dir := sharedDir(t)
	check(t, os.WriteFile(filepath.Join(dir, "id"), []byte("#!/bin/sh\necho of a directory\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// What earlier versions, and a restore as the superuser, left behind.
const oldSchema = `
	CREATE TYPE mood AS ENUM ('calm');
	CREATE TYPE pair AS (a int, b int);
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE TABLE kept (id bigserial PRIMARY KEY, other bigint GENERATED ALWAYS AS IDENTITY, x text DEFAULT 'data', m mood);
	CREATE SEQUENCE numbers;
	CREATE VIEW seen AS SELECT x FROM kept;
	CREATE MATERIALIZED VIEW stored AS SELECT x FROM kept;
	CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE FUNCTION sum_of(p pair, variadic more int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE TRIGGER acts BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION act();
	INSERT INTO kept DEFAULT VALUES;
	SELECT 'ok'`

func TestStart_ThePanelIsNoSuperuserAndOwnsItsDatabase(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	server := start(t, options)
	query(t, server.SuperuserURL(), `ALTER DATABASE postgres OWNER TO eclitunnel; ALTER SCHEMA public OWNER TO eclitunnel; SELECT 'ok'`)
	query(t, server.SuperuserURL(), oldSchema)
	query(t, server.SuperuserURL(), `CREATE SCHEMA other; CREATE TABLE other."Odd name" ();
		CREATE ROLE restored; ALTER SCHEMA other OWNER TO restored; ALTER TABLE other."Odd name" OWNER TO restored;
		ALTER TYPE mood OWNER TO restored; ALTER FUNCTION sum_of OWNER TO restored; ALTER SEQUENCE numbers OWNER TO restored; SELECT 'ok'`)
	stop(t, server)
	for range 2 {
		server = start(t, options)
		query(t, server.URL(), `
			ALTER TABLE kept ADD COLUMN IF NOT EXISTS more int;
			ALTER TYPE mood ADD VALUE IF NOT EXISTS 'wild'; ALTER TYPE pair ADD ATTRIBUTE c int; ALTER TYPE pair DROP ATTRIBUTE c;
			ALTER DOMAIN positive SET DEFAULT 1; ALTER SEQUENCE numbers RESTART; REFRESH MATERIALIZED VIEW stored;
			CREATE OR REPLACE VIEW seen AS SELECT x FROM kept WHERE true;
			CREATE OR REPLACE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
			ALTER FUNCTION sum_of COST 1; INSERT INTO kept DEFAULT VALUES; ALTER TABLE other."Odd name" ADD COLUMN IF NOT EXISTS a int;
			SELECT 'ok'`)
		stop(t, server)
	}
	server = start(t, options)
	if got := query(t, server.URL(), `SELECT count(*)::text FROM kept WHERE x = 'data'`); got != "3" {
		t.Errorf("%s rows are kept", got)
	}
	if got := query(t, server.URL(), `SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user`); got != "false" {
		t.Errorf("superuser: %s", got)
	}
	for _, statement := range []string{
		`COPY (SELECT 1) TO PROGRAM 'true'`, `SELECT pg_read_file('/etc/passwd')`, `SET ROLE eclitunnel`, `CREATE ROLE other`,
	} {
		const insufficientPrivilege = "42501"
		refused := new(pq.Error)
		if _, err := queryURL(t.Context(), server.URL(), statement); !errors.As(err, &refused) || refused.Code != insufficientPrivilege {
			t.Errorf("%s: %v", statement, err)
		}
	}
	// As the documented restore does.
	query(t, server.URL(), `DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
}
