//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// postgres is a Postgres server of the test's own, that counts what it is asked.
type postgres struct {
	t   *testing.T
	bin string
	dir string
	as  *syscall.SysProcAttr
}

// startPostgres starts one on a socket in a directory of its own; it ends with
// the test.
func startPostgres(t *testing.T) *postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	check(t, err)
	if path, err := exec.LookPath("pg_ctl"); err == nil {
		found = append([]string{path}, found...)
	}
	if len(found) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no postgres")
		}
		t.Skip("there is no postgres")
	}
	p := &postgres{t: t, bin: filepath.Dir(found[len(found)-1]), dir: filepath.Join(newDir(t), "postgres")}
	check(t, os.Mkdir(p.dir, 0o700))
	p.beUnprivileged()
	if out, err := p.command("initdb", "-D", p.dir+"/data", "-U", "postgres", "-A", "trust", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := p.command("postgres", "-D", p.dir+"/data",
		"-c", "listen_addresses=", "-c", "unix_socket_directories="+p.dir,
		"-c", "shared_preload_libraries=pg_stat_statements", "-c", "max_connections=200")
	check(t, server.Start())
	t.Cleanup(func() {
		// Its fast shutdown, whose exit status is 0.
		if err := errors.Join(server.Process.Signal(syscall.SIGINT), server.Wait()); err != nil {
			t.Error(err)
		}
	})
	until(t, "postgres answers", func(context.Context) (bool, error) {
		err := p.command("psql", "-h", p.dir, "-U", "postgres", "-c", "CREATE EXTENSION pg_stat_statements").Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return false, err
		}
		return err == nil, nil
	})
	return p
}

// beUnprivileged chooses an account, since Postgres does not run as root.
func (p *postgres) beUnprivileged() {
	p.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	check(p.t, err)
	uid, err := strconv.Atoi(account.Uid)
	check(p.t, err)
	gid, err := strconv.Atoi(account.Gid)
	check(p.t, err)
	check(p.t, os.Chown(p.dir, uid, gid))
	p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = p.dir, p.as
	return cmd
}

// url is where panels reach it.
func (p *postgres) url() string { return "postgres://postgres@/postgres?host=" + p.dir }

// ask runs a query and returns its answer as numbers, column by column.
func (p *postgres) ask(query string) []float64 {
	p.t.Helper()
	cmd := p.command("psql", "-h", p.dir, "-U", "postgres", "-At", "-F", " ", "-c", query)
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
	var numbers []float64
	for _, field := range strings.Fields(string(out)) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			p.t.Fatalf("%s: %q", query, out)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// forget has asked start over.
func (p *postgres) forget() { p.ask(`SELECT 0 FROM pg_stat_statements_reset()`) }

// asked is how many statements panels have sent, and how long Postgres worked on
// them. What begins and ends a transaction is a statement too.
func (p *postgres) asked() (statements float64, worked time.Duration) {
	p.t.Helper()
	n := p.ask(`SELECT coalesce(sum(calls), 0), coalesce(sum(total_exec_time), 0)
		FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'`)
	return n[0], time.Duration(n[1] * float64(time.Millisecond))
}

// busiest lists the statements asked most often.
func (p *postgres) busiest(n int) string {
	cmd := p.command("psql", "-h", p.dir, "-U", "postgres", "-At", "-F", "  ", "-c", fmt.Sprintf(
		`SELECT calls, round(mean_exec_time::numeric, 3) || ' ms', left(regexp_replace(query, '\s+', ' ', 'g'), 90)
		FROM pg_stat_statements ORDER BY calls DESC LIMIT %d`, n))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}
