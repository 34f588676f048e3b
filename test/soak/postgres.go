//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/test/cluster"
)

const (
	postgresPort = 5432
	// standbyPort is that of a standby until it takes over.
	standbyPort = 5433
	// postgresPatience is how long it may take to start.
	postgresPatience = 30 * time.Second
)

// postgres is the operator's Postgres, and its standby while there is one. Both
// are on one machine: the standby takes over the address.
type postgres struct {
	place   *place
	bin     string
	account *syscall.Credential // nil is ours.
	dir     string
	age     int // Of the data directory: each standby has a new one.
	process *cluster.Process
	standby *cluster.Process
}

// newPostgres makes a database cluster below dir.
func newPostgres(ctx context.Context, at *place, dir string) (*postgres, error) {
	p := &postgres{place: at, dir: filepath.Join(dir, "postgres")}
	var err error
	if p.bin, err = cluster.PostgresBin(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if p.account, err = cluster.PostgresAccount(); err != nil {
		return nil, err
	}
	if p.account != nil {
		if err := os.Chown(p.dir, int(p.account.Uid), int(p.account.Gid)); err != nil {
			return nil, err
		}
	}
	if err := p.run(ctx, "initdb", "-D", p.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	hba := "local all all trust\nhost all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n"
	return p, os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte(hba), 0o600)
}

// url is where panels find it.
func (p *postgres) url() string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", p.place.on(postgresPort))
}

func (p *postgres) data() string { return filepath.Join(p.dir, strconv.Itoa(p.age)) }

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	//nolint:noctx // a server outlives the call that starts it; what ends is short
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	return cmd
}

// run runs one of its programs to the end, on its machine.
func (p *postgres) run(ctx context.Context, name string, args ...string) error {
	cmd := p.command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.place.Do(cmd.Start); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		//nolint:errcheck // it has ended, or ends
		cmd.Process.Kill()
	})()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out.String())
	}
	return nil
}

func (p *postgres) psql(ctx context.Context, port int, statement string) error {
	return p.run(ctx, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", p.place.addr.String(), "-p", strconv.Itoa(port), "-c", statement)
}

// launch starts the server of a data directory.
func (p *postgres) launch(data string, port int) (*cluster.Process, error) {
	return p.place.Start("postgres", p.command("postgres", "-D", data,
		"-c", "listen_addresses="+p.place.addr.String(),
		"-c", "port="+strconv.Itoa(port),
		"-c", "unix_socket_directories=",
		"-c", "max_connections=200",
		"-c", "wal_retrieve_retry_interval=100ms",
	), nil)
}

// start starts it and waits until it answers. After kill -9 it recovers first.
func (p *postgres) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	last := ""
	err := cluster.Until(ctx, "Postgres answers", func(ctx context.Context) (bool, error) {
		if p.process == nil {
			var err error
			if p.process, err = p.launch(p.data(), postgresPort); err != nil {
				return false, err
			}
		}
		select {
		case <-p.process.Done():
			// Those that kill -9 orphaned have not all noticed yet: it is tried again.
			last = p.process.LastLines(5)
			p.process = nil
			return false, nil
		default:
		}
		err := p.psql(ctx, postgresPort, "SELECT 1")
		if err != nil && ctx.Err() == nil {
			last = err.Error()
		}
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, last)
	}
	return nil
}

// kill ends it as a power cut would.
func (p *postgres) kill() error {
	err := p.process.Kill()
	p.process = nil
	return err
}

// follow makes a standby that every commit waits for.
func (p *postgres) follow(ctx context.Context) error {
	data := filepath.Join(p.dir, strconv.Itoa(p.age+1))
	err := p.run(ctx, "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-U", "postgres", "-h", p.place.addr.String(), "-p", strconv.Itoa(postgresPort))
	if err != nil {
		return err
	}
	if p.standby, err = p.launch(data, standbyPort); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	if err := cluster.Until(ctx, "the standby follows", func(ctx context.Context) (bool, error) {
		return p.psql(ctx, postgresPort, "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming') THEN RAISE 'not yet'; END IF; END $$") == nil, nil
	}); err != nil {
		return err
	}
	if err := p.psql(ctx, postgresPort, "ALTER SYSTEM SET synchronous_standby_names = '*'"); err != nil {
		return err
	}
	if err := p.psql(ctx, postgresPort, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return cluster.Until(ctx, "commits wait for the standby", func(ctx context.Context) (bool, error) {
		return p.psql(ctx, postgresPort, "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync') THEN RAISE 'not yet'; END IF; END $$") == nil, nil
	})
}

// takeOver makes the standby the primary, at the primary's address. What the
// primary before it had is gone.
func (p *postgres) takeOver(ctx context.Context) error {
	before := p.data()
	p.age++
	if err := p.run(ctx, "pg_ctl", "-D", p.data(), "-w", "promote"); err != nil {
		return err
	}
	if err := p.psql(ctx, standbyPort, "ALTER SYSTEM RESET synchronous_standby_names"); err != nil {
		return err
	}
	// It is on another port: to it clients would have to be told.
	if err := p.standby.Signal(syscall.SIGINT); err != nil {
		return err
	}
	<-p.standby.Done()
	p.standby = nil
	if err := p.start(ctx); err != nil {
		return err
	}
	return os.RemoveAll(before)
}

// stop ends it in order.
func (p *postgres) stop() error {
	var errs []error
	for _, process := range []*cluster.Process{p.standby, p.process} {
		if process != nil {
			errs = append(errs, process.Signal(syscall.SIGINT))
			<-process.Done()
		}
	}
	p.process, p.standby = nil, nil
	return errors.Join(errs...)
}
