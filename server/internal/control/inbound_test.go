package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestDecode_RejectsWhatViolatesTheContract(t *testing.T) {
	long := strings.Repeat("x", 501)
	for name, test := range map[string]struct {
		message string
		code    int
	}{
		"not JSON":              {`hello`, websocket.CloseProtocolError},
		"not an object":         {`[]`, websocket.CloseProtocolError},
		"no type":               {`{}`, websocket.CloseProtocolError},
		"unknown type":          {`{"type":"shutdown"}`, websocket.CloseProtocolError},
		"wrong field type":      {`{"type":"hello","agentVersion":1}`, websocket.CloseProtocolError},
		"the panel's message":   {`{"type":"client.snapshot","revision":1,"allocations":[],"servers":[]}`, websocket.ClosePolicyViolation},
		"NUL in hello":          {`{"type":"hello","agentVersion":"\u0000","platform":"linux/amd64"}`, websocket.ClosePolicyViolation},
		"long platform":         {`{"type":"hello","agentVersion":"1","platform":"` + long + `"}`, websocket.ClosePolicyViolation},
		"relay port 0":          {`{"type":"hello","relay":{"port":0,"fingerprint":"` + strings.Repeat("a", 64) + `"}}`, websocket.ClosePolicyViolation},
		"relay fingerprint":     {`{"type":"hello","relay":{"port":1,"fingerprint":"` + strings.Repeat("A", 64) + `"}}`, websocket.ClosePolicyViolation},
		"unknown state":         {`{"type":"status","revision":1,"allocations":[{"id":1,"state":"pending"}]}`, websocket.ClosePolicyViolation},
		"NUL in reason":         {`{"type":"status","revision":1,"allocations":[{"id":1,"state":"failed","reason":"\u0000"}]}`, websocket.ClosePolicyViolation},
		"long reason":           {`{"type":"status","revision":1,"allocations":[{"id":1,"state":"failed","reason":"` + long + `"}]}`, websocket.ClosePolicyViolation},
		"unknown target":        {`{"type":"status","revision":1,"allocations":[{"id":1,"state":"ready","target":"asleep"}]}`, websocket.ClosePolicyViolation},
		"NUL in target reason":  {`{"type":"status","revision":1,"allocations":[{"id":1,"state":"ready","target":"down","targetReason":"\u0000"}]}`, websocket.ClosePolicyViolation},
		"long target reason":    {`{"type":"status","revision":1,"allocations":[{"id":1,"state":"ready","target":"down","targetReason":"` + long + `"}]}`, websocket.ClosePolicyViolation},
		"negative count":        {`{"type":"status","revision":1,"allocations":[],"refusals":[{"id":1,"players":{"denied":-1},"datagrams":{}}]}`, websocket.ClosePolicyViolation},
		"too large a count":     {`{"type":"status","revision":1,"allocations":[],"refusals":[{"id":1,"players":{},"datagrams":{"denied":9223372036854775808}}]}`, websocket.CloseProtocolError},
		"many reasons":          {`{"type":"status","revision":1,"allocations":[],"refusals":[{"id":1,"players":{` + reasons(65) + `},"datagrams":{}}]}`, websocket.ClosePolicyViolation},
		"more than 200 ports":   {`{"type":"status","revision":1,"allocations":[],"refusals":[` + strings.Repeat(`{"id":1,"players":{},"datagrams":{}},`, 200) + `{"id":1,"players":{},"datagrams":{}}]}`, websocket.ClosePolicyViolation},
		"connection's id":       {connection(`"id":"1","sourceAddress":"192.0.2.1","sourcePort":1`), websocket.ClosePolicyViolation},
		"connection's address":  {connection(`"id":"0000000000000001","sourceAddress":"fe80::1%eth0","sourcePort":1`), websocket.ClosePolicyViolation},
		"connection's port":     {connection(`"id":"0000000000000001","sourceAddress":"192.0.2.1","sourcePort":65536`), websocket.ClosePolicyViolation},
		"connection's bytes":    {`{"type":"connections","opened":[],"updated":[{"id":"0000000000000001","downloadBytes":-1,"uploadBytes":0}],"closed":[]}`, websocket.ClosePolicyViolation},
		"connection's trip":     {`{"type":"connections","opened":[],"updated":[],"closed":[{"id":"0000000000000001","downloadBytes":0,"uploadBytes":0,"tunnelRoundTripMs":-1}]}`, websocket.ClosePolicyViolation},
		"501 connections":       {`{"type":"connections","opened":[],"updated":[],"closed":[` + strings.Repeat(`{"id":"0000000000000001","downloadBytes":0,"uploadBytes":0},`, 500) + `{"id":"0000000000000001","downloadBytes":0,"uploadBytes":0}]}`, websocket.ClosePolicyViolation},
		"more than 1000 states": {`{"type":"status","revision":1,"allocations":[` + strings.Repeat(`{"id":1,"state":"ready"},`, 1000) + `{"id":1,"state":"ready"}]}`, websocket.ClosePolicyViolation},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode([]byte(test.message))
			var v *violation
			if !errors.As(err, &v) || v.code != test.code {
				t.Errorf("got %v, want a violation with code %d", err, test.code)
			}
		})
	}
}

// connection returns a report of one connection.
func connection(fields string) string {
	return `{"type":"connections","opened":[{` + fields + `,"allocationId":1,"since":"2026-01-02T03:20:00Z","downloadBytes":0,"uploadBytes":0}],"updated":[],"closed":[]}`
}

// reasons returns counts of n reasons.
func reasons(n int) string {
	counts := make([]string, n)
	for i := range counts {
		counts[i] = fmt.Sprintf(`"reason_%d":1`, i)
	}
	return strings.Join(counts, ",")
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"hello","agentVersion":"0.1.0","platform":"linux/amd64"}`))
	f.Add([]byte(`{"type":"hello","agentVersion":"","platform":"","relay":{"port":7443,"fingerprint":"` + strings.Repeat("0", 64) + `"}}`))
	f.Add([]byte(`{"type":"status","revision":3,"allocations":[{"id":1,"state":"failed","reason":"refused"}]}`))
	f.Add([]byte(`{"type":"status","revision":3,"allocations":[],"refusals":[{"id":1,"players":{"denied":1},"datagrams":{}}]}`))
	f.Add([]byte(`{"type":"resync"}`))
	f.Add([]byte(`{"type":"connections","opened":[{"id":"01f64c6f3c7f9f91","allocationId":1,"sourceAddress":"::1","sourcePort":1,"since":"2026-01-02T03:20:00Z","downloadBytes":0,"uploadBytes":0}],"updated":[],"closed":[],"complete":true}`))
	f.Add([]byte(`{"type":"connections","opened":[],"updated":[{"id":"01f64c6f3c7f9f91","downloadBytes":1,"uploadBytes":2,"playerRoundTripMs":1.5}],"closed":[{"id":"01f64c6f3c7f9f91","downloadBytes":1,"uploadBytes":2}]}`))
	f.Add([]byte(`{"type":"probe.result","id":"6b0f5f0e-52c1-4f0e-8a55-8b1f0c7d9e21","target":{"allowed":true,"tcp":{"state":"answered","game":{"kind":"source","name":"a","players":1}},"udp":{"state":"silent"}},"port":{"open":true,"arrived":1,"refused":{"denied":1}},"addresses":[{"state":"refused"}]}`))
	f.Add([]byte(`{"type":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		message, err := decode(data)
		if err != nil {
			var v *violation
			if !errors.As(err, &v) || len(v.reason) > 123 || !utf8.ValidString(v.reason) {
				t.Fatalf("%v is not a valid reason of a close frame", err)
			}
			return
		}
		switch m := message.(type) {
		case types.Hello:
			if len(m.AgentVersion) > 4*types.MaxHelloAgentVersion || strings.Contains(m.Platform, "\x00") {
				t.Fatalf("accepted %+v", m)
			}
		case types.StatusReport:
			for _, a := range m.Allocations {
				if !a.State.Valid() {
					t.Fatalf("accepted %+v", a)
				}
			}
		case types.ConnectionsReport:
			sent := func(int64) bool { return true }
			queue := newConnections()
			queue.add(m, sent)
			changes, _ := queue.take(1)
			for _, o := range changes.Opened {
				if !o.Source.IsValid() || o.DownloadBytes < 0 || o.SourcePort < 0 {
					t.Fatalf("accepted %+v", o)
				}
			}
		case types.ProbeResult:
			if m.Addresses != nil {
				for _, reply := range *m.Addresses {
					if g := reply.Game; !reply.State.Valid() || g != nil && g.Name != nil && strings.ContainsAny(*g.Name, "\x00\x1b\n") {
						t.Fatalf("accepted %+v", reply)
					}
				}
			}
		case types.ResyncRequest:
		default:
			t.Fatalf("accepted a %T", message)
		}
	})
}
