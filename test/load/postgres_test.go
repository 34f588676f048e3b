//go:build linux

package load

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// postgres is a Postgres server of the test's own that counts its statements.
type postgres struct {
	*cluster.Postgres
	t *testing.T
}

// startPostgres starts one on a Unix socket; it ends with the test.
func startPostgres(t *testing.T) *postgres {
	t.Helper()
	server, err := cluster.NewPostgres(t.Context(), cluster.PostgresOptions{
		Dir: clustertest.Dir(t), Settings: []string{"shared_preload_libraries=pg_stat_statements"},
	})
	if errors.Is(err, cluster.ErrNoPostgres) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	check(t, server.Start(t.Context()))
	_, err = server.Query(t.Context(), "CREATE EXTENSION pg_stat_statements")
	check(t, err)
	return &postgres{server, t}
}

// numbers runs a query and returns its answer as numbers, column by column.
func (p *postgres) numbers(query string) []float64 {
	p.t.Helper()
	out, err := p.Query(p.t.Context(), query)
	check(p.t, err)
	var numbers []float64
	for _, field := range strings.Fields(out) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			p.t.Fatalf("%s: %q", query, out)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// resetStatements has statements start over.
func (p *postgres) resetStatements() { p.numbers(`SELECT 0 FROM pg_stat_statements_reset()`) }

// statements is how many statements panels have sent, and how long Postgres worked
// on them. What begins and ends a transaction is a statement too. Those of the event log are
// left out of the count: Postgres sends them to itself at each commit, where pg_stat_statements
// takes them for a client's.
func (p *postgres) statements() (n float64, worked time.Duration) {
	p.t.Helper()
	sums := p.numbers(`SELECT coalesce(sum(calls) FILTER (WHERE query !~ 'event_counter|event_commits|INTO events|c ->> |set_config'), 0),
			coalesce(sum(total_exec_time), 0)
		FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'`)
	return sums[0], time.Duration(sums[1] * float64(time.Millisecond))
}

// transactions is how many transactions of more than one statement panels have begun.
func (p *postgres) transactions() float64 {
	p.t.Helper()
	return p.numbers(`SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE 'BEGIN%'`)[0]
}

// writes is how many statements panels have sent that write rows.
func (p *postgres) writes() float64 {
	p.t.Helper()
	return p.numbers(`SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
		WHERE query ~* '(insert\s+into|delete\s+from|update\s+[a-z_]+\s+(as\s+)?([a-z]+\s+)?set)\s'`)[0]
}

// mostFrequent lists the statements sent most often.
func (p *postgres) mostFrequent(n int) string {
	out, err := p.Query(p.t.Context(), fmt.Sprintf(
		`SELECT calls, round(mean_exec_time::numeric, 3) || ' ms', left(regexp_replace(query, '\s+', ' ', 'g'), 90)
		FROM pg_stat_statements ORDER BY calls DESC LIMIT %d`, n))
	if err != nil {
		return err.Error()
	}
	return out
}
