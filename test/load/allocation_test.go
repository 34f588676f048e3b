//go:build linux

package load

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// listeningLimit is how long, at the median, an allocation may take from the
// request to the tunnel server's listening.
const listeningLimit = 500 * time.Millisecond

// TestAllocation_ListensSoonOnATunnelServerOfAnotherReplica asks one replica for
// ports and waits until another shows that the tunnel server, whose control
// channel is on a third, listens, and that the agent, on yet another, is ready.
func TestAllocation_ListensSoonOnATunnelServerOfAnotherReplica(t *testing.T) {
	const rounds = 50
	database := startPostgres(t)
	replicas := make([]*replica, 3)
	for i := range replicas {
		replicas[i] = newReplica(t, database)
		replicas[i].start(t)
	}
	session := logIn(t, replicas[0].url)
	asked := api(t, replicas[0].url, session)
	shown := api(t, replicas[1].url, session)
	server := enroll(t, asked, 1, &types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("ab", 32)})[0]
	agent := enroll(t, asked, 1, nil)[0]
	keep(t, replicas[2].address, server)
	keep(t, replicas[1].address, agent)

	var received, listening []time.Duration
	for range rounds {
		started := time.Now()
		made, err := asked.CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
			DeviceID: &agent.id, ServerID: &server.id, Protocol: types.CreateTCP, LocalPort: 25565,
		})
		check(t, err)
		if made.JSON201 == nil {
			t.Fatalf("allocate: %s", made.Body)
		}
		id := made.JSON201.ID
		for status := types.AllocationPending; status != types.AllocationListening; {
			answer, err := shown.GetAllocationWithResponse(t.Context(), id)
			check(t, err)
			if answer.JSON200 == nil {
				t.Fatalf("get: %s", answer.Body)
			}
			status = answer.JSON200.Status
			if time.Since(started) > patience {
				t.Fatalf("allocation %d is %s", id, status)
			}
		}
		listening = append(listening, time.Since(started))
		received = append(received, server.received(id).Sub(started))
	}
	slices.Sort(received)
	slices.Sort(listening)
	t.Logf("from the request until the tunnel server received it: median %v, worst %v; until the API reports it listening: median %v, worst %v",
		received[rounds/2], received[rounds-1], listening[rounds/2], listening[rounds-1])
	if median := listening[rounds/2]; median > listeningLimit {
		t.Errorf("the median is %v, want %v", median, listeningLimit)
	}
}

// received is when a device received an allocation.
func (d *device) received(id int64) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listening[id]
}

// keep keeps devices connected to a panel until the test ends, and waits until
// they are.
func keep(t *testing.T, address string, devices ...*device) {
	t.Helper()
	f := &fleet{address: address, platform: "linux/amd64", devices: devices}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	await.Within(t, patience, "connection of every device", func(context.Context) (bool, error) {
		return f.connected.Load() == int64(len(devices)), nil
	})
}
