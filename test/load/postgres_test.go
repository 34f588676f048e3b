//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/cluster"
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
	bin, err := cluster.PostgresBin()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	p := &postgres{t: t, bin: bin, dir: filepath.Join(newDir(t), "postgres")}
	check(t, os.Mkdir(p.dir, 0o700))
	account, err := cluster.PostgresAccount()
	check(t, err)
	if account != nil {
		check(t, os.Chown(p.dir, int(account.Uid), int(account.Gid)))
	}
	p.as = &syscall.SysProcAttr{Credential: account}
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
