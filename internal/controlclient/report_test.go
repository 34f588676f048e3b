package controlclient_test

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func wantReport(t *testing.T, p *panel, revision int64, ids ...int64) {
	t.Helper()
	if r := p.status(); r.Revision != revision || !slices.Equal(reported(r), ids) {
		t.Errorf("reported %v as of revision %d, want %v as of %d", reported(r), r.Revision, ids, revision)
	}
}

func TestReport_SendsDifferencesOnly(t *testing.T) {
	d := run(t, nil)
	d.Report() // No channel: nothing to send to.
	p := d.next(t)
	d.is(ready(2), failed(1, "no"), ready(3))
	p.snapshot(1, 1, 2, 3)
	wantReport(t, p, 1, 1, 2, 3)
	d.Report()
	d.is(ready(1), ready(2), ready(3))
	d.Report()
	wantReport(t, p, 1, 1)
	drained := ready(2)
	drained.Drained = new(bool)
	d.is(ready(1), drained, failed(3, "no"))
	d.Report()
	wantReport(t, p, 1, 3) // Not to have drained is nothing to report.
	*drained.Drained = true
	d.is(ready(1), drained)
	d.Report()
	wantReport(t, p, 1, 2)
	d.is(ready(1), drained, failed(3, "no"))
	d.Report()
	wantReport(t, p, 1, 3) // It was not reported on in between.
}

func TestReport_WhatAChangeNamesIsReportedAgain(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	d.is(ready(1), ready(2))
	p.snapshot(1, 1, 2)
	wantReport(t, p, 1, 1, 2)
	p.change(2, []int64{2}, nil)
	wantReport(t, p, 2, 2)
	p.change(3, []int64{3}, nil) // Nothing is known of it yet.
	p.change(4, []int64{1}, nil)
	wantReport(t, p, 4, 1)
}

func TestReport_EverythingAfterASnapshot(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	d.is(ready(1), ready(2))
	p.snapshot(1, 1, 2)
	wantReport(t, p, 1, 1, 2)
	p.snapshot(2, 1, 2) // On the same channel.
	wantReport(t, p, 2, 1, 2)
	p.Close(channel.CloseRestarting, "")
	p = d.next(t)
	d.Report()
	p.snapshot(1, 1, 2)
	wantReport(t, p, 1, 1, 2)
}

func TestReport_NeverNamesARevisionBeforeItIsApplied(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	d := run(t, func(_ *device, o *options) {
		o.Apply = func(s state) {
			entered <- struct{}{}
			<-leave
		}
	})
	p := d.next(t)
	d.is(ready(1))
	for revision := int64(1); revision <= 2; revision++ {
		if revision == 1 {
			p.snapshot(1, 1)
		} else {
			p.change(2, []int64{1}, nil)
		}
		await.Receive(t, entered, "call of Apply")
		d.is(failed(1, "not applied yet"))
		d.Report()
		d.ReportPlayers(time.Now())
		d.is(ready(1))
		leave <- struct{}{}
		if r := p.status(); r.Revision != revision || len(r.Allocations) != 1 || r.Allocations[0].State != types.ReportReady {
			t.Errorf("report %+v", r)
		}
	}
}

func TestReport_InMessagesOfTheContractsMaximum(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	var all []types.AllocationReport
	for id := int64(2500); id > 0; id-- {
		all = append(all, ready(id))
	}
	d.is(all...)
	p.snapshot(1)
	for next := int64(1); next <= 2500; {
		r := p.status()
		if len(r.Allocations) > 1000 {
			t.Errorf("%d reports in one message", len(r.Allocations))
		}
		for _, a := range r.Allocations {
			if a.ID != next {
				t.Fatalf("a report on %d, want %d", a.ID, next)
			}
			next++
		}
	}
}

func TestReport_CutsReasonsBetweenCharacters(t *testing.T) {
	d := run(t, nil)
	p := d.next(t)
	d.is(failed(1, strings.Repeat("x", 501)), failed(2, strings.Repeat("é", 400)), failed(3, "x"+strings.Repeat("é", 400)),
		failed(4, strings.Repeat("é", 250)), failed(5, ""))
	p.snapshot(1)
	report := p.status()
	for i, want := range []string{strings.Repeat("x", 500), strings.Repeat("é", 250), "x" + strings.Repeat("é", 249), strings.Repeat("é", 250)} {
		if got := report.Allocations[i].Reason; got == nil || *got != want {
			t.Errorf("reason %v, want %q", got, want)
		}
	}
	if got := report.Allocations[4].Reason; got != nil {
		t.Errorf("reason %q, want none", *got)
	}
	d.Report() // Equal once cut, hence not reported again.
	d.is(ready(6))
	d.Report()
	wantReport(t, p, 1, 6)
}

func TestReportPlayers_AtMostEveryFiveSecondsAndZeroAtOnce(t *testing.T) {
	d := run(t, func(d *device, o *options) {
		o.Players = func() int {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.players
		}
	})
	now := time.Now()
	set := func(players int, after time.Duration) {
		d.mu.Lock()
		d.players = players
		d.mu.Unlock()
		d.ReportPlayers(now.Add(after))
	}
	want := func(p *panel, revision int64, players int) {
		t.Helper()
		if r := p.status(); r.Revision != revision || r.Allocations == nil || len(r.Allocations) != 0 || r.Players == nil || *r.Players != players {
			t.Errorf("report %+v, want %d players as of revision %d", r, players, revision)
		}
	}
	set(3, 0) // No channel.
	p := d.next(t)
	set(3, 0)
	p.snapshot(1)
	want(p, 1, 3)
	set(4, time.Second)
	set(3, 20*time.Second)
	set(5, 20*time.Second)
	want(p, 1, 5)
	set(6, 24*time.Second)
	set(0, 24*time.Second)
	want(p, 1, 0)
	set(0, 40*time.Second)
	set(1, 25*time.Second)
	set(2, 29*time.Second)
	want(p, 1, 2)
	p.change(2, []int64{1}, nil)
	p.snapshot(3) // The contract wants the number after every snapshot.
	want(p, 3, 2)
	p.Close(channel.CloseRestarting, "")
	p = d.next(t)
	p.snapshot(1)
	want(p, 1, 2)
}

// refuses makes the device one whose public ports have refused counts.
func refuses(counts map[int64]int64) func(*device, *options) {
	return func(d *device, o *options) {
		o.Refusals = func() iter.Seq[types.AllocationRefusals] {
			return func(yield func(types.AllocationRefusals) bool) {
				d.mu.Lock()
				defer d.mu.Unlock()
				for _, id := range slices.Sorted(maps.Keys(counts)) {
					n := counts[id]
					delete(counts, id)
					if !yield(types.AllocationRefusals{ID: id, Players: types.RefusalCounts{"denied": n}, Datagrams: types.RefusalCounts{}}) {
						return
					}
				}
			}
		}
	}
}

func wantRefusals(t *testing.T, p *panel, count int, first, n int64) {
	t.Helper()
	r := p.status()
	if len(r.Allocations) != 0 || r.Refusals == nil || len(*r.Refusals) != count || (*r.Refusals)[0].ID != first || (*r.Refusals)[0].Players["denied"] != n {
		t.Errorf("reported %+v, want %d allocations from %d with %d", r, count, first, n)
	}
}

func TestReportRefusals_AtMostEveryFiveSecondsAndOnlyWhatThereIs(t *testing.T) {
	counts := map[int64]int64{}
	d := run(t, refuses(counts))
	refuse := func(id, n int64) {
		d.mu.Lock()
		defer d.mu.Unlock()
		counts[id] += n
	}
	now := time.Now()
	refuse(1, 1)
	d.ReportRefusals(now) // There is no channel.
	p := d.next(t)
	d.ReportRefusals(now) // There is no desired state.
	p.snapshot(1)
	d.want(t)
	await.Until(t, "the state is applied", func() bool {
		d.ReportRefusals(now)
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(counts) == 0
	})
	wantRefusals(t, p, 1, 1, 1)
	refuse(1, 2)
	d.ReportRefusals(now.Add(4 * time.Second)) // Too early.
	refuse(1, 3)
	d.ReportRefusals(now.Add(5 * time.Second))
	wantRefusals(t, p, 1, 1, 5)
	d.ReportRefusals(now.Add(20 * time.Second)) // Nothing was refused,
	refuse(2, 4)
	d.ReportRefusals(now.Add(21 * time.Second)) // so that this is not too early.
	wantRefusals(t, p, 1, 2, 4)

	// What is refused without a channel is reported on the next one, at once.
	p.Close(channel.CloseRestarting, "")
	next := d.next(t)
	refuse(3, 7)
	d.ReportRefusals(now.Add(22 * time.Second))
	next.snapshot(1)
	d.want(t)
	await.Until(t, "the state is applied", func() bool {
		d.ReportRefusals(now.Add(22 * time.Second))
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(counts) == 0
	})
	wantRefusals(t, next, 1, 3, 7)
}

func TestReportRefusals_InMessagesOfTheContractsMaximum(t *testing.T) {
	counts := map[int64]int64{}
	for id := int64(1); id <= 450; id++ {
		counts[id] = id
	}
	d := run(t, refuses(counts))
	p := d.next(t)
	d.is(ready(1))
	p.snapshot(1, 1)
	wantReport(t, p, 1, 1) // The state is applied.
	d.ReportRefusals(time.Now())
	wantRefusals(t, p, 200, 1, 1)
	wantRefusals(t, p, 200, 201, 201)
	wantRefusals(t, p, 50, 401, 401)
}
