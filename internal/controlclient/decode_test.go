package controlclient

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// FuzzDecode checks that no message makes a device panic, and that only its own
// messages reach it, each as the type that it claims to be.
func FuzzDecode(f *testing.F) {
	for _, message := range []any{
		types.Hello{Type: types.TypeHello},
		types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1, Allocations: []types.ClientAllocation{{ID: 1}}},
		types.ClientChange{Type: types.TypeClientChange, Revision: 2, RemovedAllocations: []int64{1}},
		types.ServerSnapshot{Type: types.TypeServerSnapshot, Revision: 1, Allocations: []types.ServerAllocation{{ID: 1}}},
		types.ServerChange{Type: types.TypeServerChange, Revision: 2, RemovedClients: []uuid.UUID{{}}},
		types.UsageAck{Type: types.TypeUsageAck, Epoch: uuid.UUID{1}, Sequence: 1},
		types.ConnectionsClose{Type: types.TypeConnectionsClose, Ids: []string{"01f64c6f3c7f9f91"}},
		types.Probe{Type: types.TypeProbe, Subject: types.ProbeTarget, AllocationID: 1},
	} {
		seed, err := json.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	for _, seed := range []string{
		``, `null`, `7`, `{}`, `{"type":7}`, `{"type":"client.greeting"}`, `{"type":"client.snapshot","allocations":null}`,
		`{"type":"server.change","revision":-1}`, `{"type":"server.snapshot","type":"hello"}`, `{"Type":"server.change"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		message, kind, err := decode[types.ClientSnapshot, types.ClientChange](data)
		check[types.ClientSnapshot, types.ClientChange](t, message, kind, err)
		message, kind, err = decode[types.ServerSnapshot, types.ServerChange](data)
		check[types.ServerSnapshot, types.ServerChange](t, message, kind, err)
	})
}

func check[S Snapshot, C Change](t *testing.T, message any, kind string, err error) {
	t.Helper()
	if err != nil && message == nil {
		return
	}
	switch message.(type) {
	case types.UsageAck:
		if err != nil || kind != string(types.TypeUsageAck) {
			t.Errorf("%q is a %T (%v)", kind, message, err)
		}
	case types.ConnectionsClose:
		if err != nil || kind != string(types.TypeConnectionsClose) {
			t.Errorf("%q is a %T (%v)", kind, message, err)
		}
	case types.Probe:
		if err != nil || kind != string(types.TypeProbe) {
			t.Errorf("%q is a %T (%v)", kind, message, err)
		}
	case S, C:
		if u := describe(message); err != nil || u.kind != kind {
			t.Errorf("%q is a %T (%v)", kind, message, err)
		}
	default:
		if message != nil || err != nil {
			t.Errorf("%q is a %T (%v)", kind, message, err)
		}
	}
}

// BenchmarkDecode reads what a tunnel client receives: a change, and the snapshots
// of a home and of a hosting company.
func BenchmarkDecode(b *testing.B) {
	allocations := func(n int) []types.ClientAllocation {
		all := make([]types.ClientAllocation, n)
		for i := range all {
			all[i] = types.ClientAllocation{
				ID: int64(i + 1), Name: "Survival", Protocol: types.ProtocolTCP, ServerID: uuid.New(),
				PublicAddress: "play.example.com:20001", LocalHost: "127.0.0.1", LocalPort: 25565,
			}
		}
		return all
	}
	for name, message := range map[string]any{
		"change":       types.ClientChange{Type: types.TypeClientChange, Revision: 2, Allocations: allocations(1)},
		"snapshot-2":   types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1, Allocations: allocations(2)},
		"snapshot-200": types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1, Allocations: allocations(200)},
	} {
		data, err := json.Marshal(message)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := decode[types.ClientSnapshot, types.ClientChange](data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
