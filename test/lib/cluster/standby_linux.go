package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Follow makes a standby, and every commit wait for it.
func (p *Postgres) Follow(ctx context.Context) error {
	data := filepath.Join(p.dir, strconv.Itoa(p.generation+1))
	_, err := p.run(ctx, "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-U", "postgres", "-h", p.host(), "-p", strconv.Itoa(postgresPort))
	if err != nil {
		return err
	}
	if p.standby, err = p.launch(data, standbyPort); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	if err := p.awaitStandby(ctx, "state = 'streaming'"); err != nil {
		return err
	}
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if _, err := p.Query(ctx, statement); err != nil {
			return err
		}
	}
	return p.awaitStandby(ctx, "sync_state = 'sync'")
}

// awaitStandby waits until the primary shows a standby for which a condition holds.
func (p *Postgres) awaitStandby(ctx context.Context, condition string) error {
	return Until(ctx, "the standby has "+condition, func(ctx context.Context) (bool, error) {
		rows, err := p.Query(ctx, fmt.Sprintf("SELECT 1 FROM pg_stat_replication WHERE %s", condition))
		return err == nil && rows != "", nil
	})
}

// TakeOver makes the standby the primary, at the address of the primary before
// it, which has been killed and whose data is removed.
func (p *Postgres) TakeOver(ctx context.Context) error {
	before := p.data()
	p.generation++
	if _, err := p.run(ctx, "pg_ctl", "-D", p.data(), "-w", "promote"); err != nil {
		return err
	}
	if _, err := p.query(ctx, standbyPort, "ALTER SYSTEM RESET synchronous_standby_names"); err != nil {
		return err
	}
	// Clients do not know the standby's port: it starts again at the primary's.
	if err := p.standby.Signal(syscall.SIGINT); err != nil {
		return err
	}
	<-p.standby.Done()
	p.standby = nil
	if err := p.Start(ctx); err != nil {
		return err
	}
	return os.RemoveAll(before)
}
