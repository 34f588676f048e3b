//go:build linux

package attack

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

const (
	mbit = 1_000_000
	// tolerance is by how much a bandwidth may differ from its rule over 10 s, and
	// shortTolerance over the 2 s of make test, of which a burst is a larger part.
	tolerance, shortTolerance = 0.05, 0.1
	// medianSlack and tailSlack are by how much more than twice its calm value a round
	// trip beside a transfer may be: the machine carries that too. A game that had to wait
	// for bandwidth, or lost its datagrams, would have tens of milliseconds and more.
	medianSlack, tailSlack = 2 * time.Millisecond, 10 * time.Millisecond
	// offeredSize is the size of the datagrams that take more than a bandwidth.
	offeredSize = 1000
)

// bandwidthTime is how long a bandwidth is measured.
func bandwidthTime(t *testing.T) time.Duration {
	t.Helper()
	if attackTime(t) < longAttack {
		return 2 * time.Second
	}
	return 10 * time.Second
}

// capped allocates a port that leads to a game of its own. Of its rules only bandwidths
// count, in bits per second; 0: none.
func (w *world) capped(t *testing.T, protocol types.AllocationCreateProtocol, download, upload int64) types.Allocation {
	t.Helper()
	game, err := traffic.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = game.Close() })
	port, err := portOf(game.Addr())
	if err != nil {
		t.Fatal(err)
	}
	lifted := nullable.NewNullableWithValue(types.MaxRuleLimitsMaxPlayers)
	options := &types.AllocationOptions{
		MaxPlayers: lifted, MaxPlayersPerSource: lifted, MaxFlowsPerSource: lifted,
		ConnectionsPerSecond: lifted, ConnectionsPerSecondPerSource: lifted,
	}
	if download > 0 {
		options.DownloadBitsPerSecond = nullable.NewNullableWithValue(download)
	}
	if upload > 0 {
		options.UploadBitsPerSecond = nullable.NewNullableWithValue(upload)
	}
	return w.expose(t, protocol, port, options)
}

// until waits until an activity has done so much.
func until(t *testing.T, what string, a *traffic.Activity, count uint64) {
	t.Helper()
	await.Within(t, patience, what, func(context.Context) (bool, error) { return a.Count() >= count, nil })
}

// closes ends an activity with the test; err is why it has not begun.
func closes(t *testing.T, a *traffic.Activity, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

// withinTolerance measures ratios to what they should be until all are within tolerance,
// at most attempts times.
func withinTolerance(t *testing.T, measure func() map[string]float64) {
	t.Helper()
	var off []string
	tolerance := tolerance
	if attackTime(t) < longAttack {
		tolerance = shortTolerance
	}
	for range attempts {
		off = nil
		for name, ratio := range measure() {
			t.Logf("%s: %.3f of the rule", name, ratio)
			if math.Abs(ratio-1) > tolerance {
				off = append(off, fmt.Sprintf("%s is %.3f of the rule", name, ratio))
			}
		}
		if len(off) == 0 {
			return
		}
	}
	t.Errorf("in each of %d attempts, in the last: %v", attempts, off)
}

func TestBandwidth_HoldsForOneStreamAndForMany(t *testing.T) {
	w := sharedWorld(t)
	directions := map[string]func(address string, streams int) (*traffic.Activity, error){
		"download": func(address string, streams int) (*traffic.Activity, error) {
			return traffic.StartDownload(t.Context(), address, streams, 0)
		},
		"upload": func(address string, streams int) (*traffic.Activity, error) {
			// Blocks are small beside what a stream of many sends.
			return traffic.StartUpload(t.Context(), address, streams, 1<<10)
		},
	}
	for direction, start := range directions {
		for _, streams := range []int{1, 200} {
			for _, rate := range []int64{10 * mbit, 40 * mbit} {
				name := fmt.Sprintf("%s, %d streams, %d Mbit/s", direction, streams, rate/mbit)
				t.Run(name, func(t *testing.T) {
					rates := map[string]int64{direction: rate}
					a, err := start(w.address(w.capped(t, types.CreateTCP, rates["download"], rates["upload"])), streams)
					closes(t, a, err)
					until(t, "the transfer is under way", a, uint64(rate/8)/2)
					withinTolerance(t, func() map[string]float64 {
						began, before := time.Now(), a.Count()
						time.Sleep(bandwidthTime(t)) // It is a measurement.
						took := time.Since(began).Seconds()
						return map[string]float64{name: float64(a.Count()-before) * 8 / took / float64(rate)}
					})
				})
			}
		}
	}
}

// dropped is how many datagrams of an allocation its bandwidth has dropped.
func (w *world) dropped(ctx context.Context, id int64) (int, error) {
	answer, err := w.panel.API.GetAllocationWithResponse(ctx, id)
	if err != nil {
		return 0, err
	}
	if answer.JSON200 == nil {
		return 0, fmt.Errorf("get allocation: %s: %s", answer.Status(), answer.Body)
	}
	return int(answer.JSON200.DatagramsDropped[string(publicport.RefusedBandwidth)]), nil
}

// TestBandwidth_DropsAndCountsDatagramsAboveIt offers datagrams at twice a bandwidth. The
// game sends each back, so the bandwidth of either direction bounds what comes back.
func TestBandwidth_DropsAndCountsDatagramsAboveIt(t *testing.T) {
	w := sharedWorld(t)
	const rate, flows = 10 * mbit, 16
	for name, rates := range map[string][2]int64{"download": {rate, 0}, "upload": {0, rate}} {
		t.Run(name, func(t *testing.T) {
			a := w.capped(t, types.CreateUDP, rates[0], rates[1])
			offer, err := traffic.OpenOffer(t.Context(), w.address(a), flows, offeredSize)
			if err != nil {
				t.Fatal(err)
			}
			defer offer.Close()
			run := func(d time.Duration) traffic.Offered {
				offered, err := offer.Run(t.Context(), 2*rate/8/offeredSize, d)
				if err != nil {
					t.Fatal(err)
				}
				return offered
			}
			lost := run(time.Second).Lost // Flows are proven meanwhile.
			withinTolerance(t, func() map[string]float64 {
				d := bandwidthTime(t)
				offered := run(d)
				lost += offered.Lost
				return map[string]float64{name: float64((offered.Sent-offered.Lost)*offeredSize) * 8 / d.Seconds() / rate}
			})
			// A busy machine loses some before they are counted.
			dropped := 0
			await.Within(t, patience, "the count of what was dropped", func(ctx context.Context) (_ bool, err error) {
				dropped, err = w.dropped(ctx, a.ID)
				return float64(dropped) >= 0.9*float64(lost), err
			})
			t.Logf("%d were lost, %d counted as dropped", lost, dropped)
			if dropped > lost {
				t.Errorf("%d datagrams were lost, and %d counted as dropped", lost, dropped)
			}
		})
	}
}

// percentile is the q-quantile of durations.
func percentile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	times = slices.Sorted(slices.Values(times))
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

// TestBandwidth_AGameBesideADownloadKeepsItsRoundTrip has a player of 50 packets per
// second on a port whose other players take all of its bandwidth.
func TestBandwidth_AGameBesideADownloadKeepsItsRoundTrip(t *testing.T) {
	w := sharedWorld(t)
	const rate = 4 * mbit
	address := w.address(w.capped(t, types.CreateTCP, rate, 0))
	play := func() (median, tail time.Duration) {
		times, err := traffic.Echo(t.Context(), address, bandwidthTime(t), pause)
		if err != nil {
			t.Fatal(err)
		}
		return percentile(times, 0.5), percentile(times, 0.99)
	}
	for range attempts {
		calm50, calm99 := play()
		down, err := traffic.StartDownload(t.Context(), address, 5, 0)
		closes(t, down, err)
		until(t, "the download is under way", down, rate/8)
		beside50, beside99 := play()
		_ = down.Close() // The test's end says what was wrong.
		t.Logf("calm p50 %v, p99 %v; beside the download p50 %v, p99 %v", calm50, calm99, beside50, beside99)
		if beside50 <= slowdown*calm50+medianSlack && beside99 <= slowdown*calm99+tailSlack {
			return
		}
	}
	t.Errorf("in each of %d attempts the round trip is longer", attempts)
}
