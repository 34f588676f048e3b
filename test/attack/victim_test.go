//go:build linux

package attack

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

const (
	// pause is that between a player's messages, and joinPause that between joins.
	pause     = 20 * time.Millisecond
	joinPause = 100 * time.Millisecond
	// slowdown is how many times its calm median a victim's median may be.
	slowdown = 2
	// slack is what a median may be in any case: below it, what is measured is the
	// machine that all attackers share with the victim.
	slack = time.Millisecond
	// attempts is how often a measurement is repeated whose medians were too high: the
	// machine may have been busy with something else. Failed joins are never excused.
	attempts = 3
)

// experience is what a victim met with.
type experience struct {
	tcp, udp, joins, otherJoins []time.Duration
	failed                      []error
}

// play plays for a time: a player of each protocol who stays, and players who join both
// the allocation that is attacked and another one of the same agent.
func (w *world) play(ctx context.Context, d time.Duration) *experience {
	e := &experience{}
	var mu sync.Mutex
	var players sync.WaitGroup
	note := func(what string, times *[]time.Duration, got []time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		*times = append(*times, got...)
		if err != nil {
			e.failed = append(e.failed, fmt.Errorf("%s: %w", what, err))
		}
	}
	players.Go(func() {
		times, err := traffic.Echo(ctx, w.address(w.tcp), d, pause)
		note("round trip", &e.tcp, times, err)
	})
	players.Go(func() {
		times, err := traffic.EchoDatagrams(ctx, w.address(w.udp), d, pause)
		note("round trip of datagrams", &e.udp, times, err)
	})
	join := func(what, address string, times *[]time.Duration) {
		ticker := time.NewTicker(joinPause)
		defer ticker.Stop()
		for end := time.Now().Add(d); time.Now().Before(end); <-ticker.C {
			began := time.Now()
			err := new(traffic.Player).Visit(ctx, address, 1)
			note(what, times, []time.Duration{time.Since(began)}, err)
		}
	}
	players.Go(func() { join("join", w.address(w.tcp), &e.joins) })
	players.Go(func() { join("join of another allocation", w.address(w.other), &e.otherJoins) })
	players.Wait()
	return e
}

// medians are the medians of an experience, by name.
func (e *experience) medians() map[string]time.Duration {
	return map[string]time.Duration{
		"round trip TCP": median(e.tcp), "round trip UDP": median(e.udp),
		"join": median(e.joins), "join elsewhere": median(e.otherJoins),
	}
}

func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	times = slices.Clone(times)
	slices.Sort(times)
	return times[len(times)/2]
}

// endure compares what players meet with in calm with what they meet with under an
// attack, which begin starts and stop ends.
func (w *world) endure(t *testing.T, begin func(ctx context.Context) (stop func())) {
	t.Helper()
	d := attackTime(t)
	var worse []string
	for range attempts {
		calm := w.play(t.Context(), d)
		ctx, cancel := context.WithCancel(t.Context())
		stop := begin(ctx)
		attacked := w.play(t.Context(), d)
		cancel()
		stop()
		for _, err := range append(calm.failed, attacked.failed...) {
			t.Errorf("%v", err)
		}
		for _, e := range []*experience{calm, attacked} {
			if median(e.udp) >= traffic.LostAfter {
				t.Error("most of a player's datagrams were lost")
			}
		}
		if t.Failed() {
			return
		}
		worse = compare(t, calm.medians(), attacked.medians())
		if len(worse) == 0 {
			return
		}
	}
	t.Errorf("in each of %d attempts, in the last: %v", attempts, worse)
}

// compare returns what was slower than it may be.
func compare(t *testing.T, calm, attacked map[string]time.Duration) (worse []string) {
	t.Helper()
	for _, name := range []string{"round trip TCP", "round trip UDP", "join", "join elsewhere"} {
		ratio := float64(attacked[name]) / float64(calm[name])
		t.Logf("%-15s calm %8v, attacked %8v: %.2f", name, calm[name].Round(time.Microsecond), attacked[name].Round(time.Microsecond), ratio)
		if attacked[name] > max(slowdown*calm[name], slack) {
			worse = append(worse, fmt.Sprintf("%s %.2f times as slow", name, ratio))
		}
	}
	return worse
}
