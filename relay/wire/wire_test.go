package wire_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

var (
	player4 = netip.MustParseAddrPort("203.0.113.9:50123")
	public4 = netip.MustParseAddrPort("198.51.100.1:25565")
	player6 = netip.MustParseAddrPort("[2001:db8::9]:50123")
	public6 = netip.MustParseAddrPort("[2001:db8::1]:25565")
)

var records = []wire.Record{
	{Kind: wire.RecordOpen, Flow: 1, Allocation: 17, IdleSeconds: 60, Source: player4, Destination: public4},
	{Kind: wire.RecordDatagram, Flow: 1, Payload: []byte("ping")},
	{Kind: wire.RecordOpen, Flow: 1<<63 + 5, Allocation: 1<<63 - 1, IdleSeconds: 3600, Source: player6, Destination: public6},
	{Kind: wire.RecordDatagram, Flow: 300, Payload: []byte{}},
	{Kind: wire.RecordDatagram, Flow: 300, Payload: bytes.Repeat([]byte{7}, wire.MaxDatagram)},
	{Kind: wire.RecordClose, Flow: 1},
	{Kind: wire.RecordOpened, Flow: 300},
	{Kind: wire.RecordProbe, Flow: 7, Payload: make([]byte, 1000)},
	{Kind: wire.RecordAnswer, Flow: 7},
	{Kind: wire.RecordHead, Flow: 300, Split: 1 << 20, Payload: make([]byte, wire.MaxHalf)},
	{Kind: wire.RecordTail, Flow: 300, Split: 1 << 20, Payload: []byte{7}},
}

func TestBatch_EncodesEveryRecord(t *testing.T) {
	var batch []byte
	for _, r := range records {
		before := len(batch)
		batch = wire.AppendRecord(batch, r)
		if grown := len(batch) - before; grown > wire.RecordSize(len(r.Payload)) || grown != wire.EncodedSize(&r) {
			t.Errorf("record %+v took %d bytes, not %d, or more than RecordSize says", r.Kind, grown, wire.EncodedSize(&r))
		}
	}
	for i, want := range records {
		got, rest, err := wire.NextRecord(batch)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		batch = rest
		if !bytes.Equal(got.Payload, want.Payload) {
			t.Errorf("record %d: payload of %d bytes, want %d", i, len(got.Payload), len(want.Payload))
		}
		got.Payload, want.Payload = nil, nil
		if got.Kind != want.Kind || got.Flow != want.Flow || got.Allocation != want.Allocation ||
			got.Split != want.Split || got.IdleSeconds != want.IdleSeconds || got.Source != want.Source || got.Destination != want.Destination {
			t.Errorf("record %d: %+v, want %+v", i, got, want)
		}
	}
	if len(batch) != 0 {
		t.Errorf("%d bytes left", len(batch))
	}
}

func TestBatch_EncodesMappedAddressAsIPv4(t *testing.T) {
	mapped := netip.MustParseAddrPort("[::ffff:203.0.113.9]:50123")
	b := wire.AppendRecord(nil, wire.Record{Kind: wire.RecordOpen, Flow: 1, Allocation: 1, IdleSeconds: 5, Source: mapped, Destination: mapped})
	r, _, err := wire.NextRecord(b)
	if err != nil || r.Source != player4 {
		t.Errorf("source %v (%v), want %v", r.Source, err, player4)
	}
}

func TestBatch_RejectsMalformedRecords(t *testing.T) {
	open := wire.AppendRecord(nil, records[0])
	for name, batch := range map[string][]byte{
		"empty":                   {},
		"unknown kind":            {9, 1},
		"no flow":                 {3},
		"long varint":             {3, 0x81, 0x00},
		"endless varint":          bytes.Repeat([]byte{0xff}, 20),
		"payload truncated":       {2, 1, 5, 'a'},
		"head without split":      {7, 1},
		"empty head":              {7, 1, 1, 0},
		"empty tail":              {8, 1, 1, 0},
		"tail truncated":          {8, 1, 1, 5, 'a'},
		"tail too long":           append([]byte{8, 1, 1, 0xdd, 0x0b}, make([]byte, wire.MaxHalf+1)...),
		"payload too long":        append([]byte{2, 1, 0xe4, 0xff, 0x03}, make([]byte, 70000)...),
		"open truncated":          open[:len(open)-1],
		"open without allocation": bytes.Replace(open, []byte{1, 1, 17}, []byte{1, 1, 0}, 1),
		"address of five bytes":   bytes.Replace(open, []byte{4, 203}, []byte{5, 203}, 1),
		"mapped address": append([]byte{1, 1, 1, 5, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4, 0, 1},
			4, 1, 2, 3, 4, 0, 1),
	} {
		if _, _, err := wire.NextRecord(batch); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func TestControl_EncodesEveryMessage(t *testing.T) {
	for _, want := range []wire.Control{
		{Type: wire.ControlOpen, Allocation: 17, Source: player6, Destination: public6},
		{Type: wire.ControlFin}, {Type: wire.ControlReset}, {Type: wire.ControlIdle},
	} {
		data, err := wire.AppendControl(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := wire.DecodeControl(data); err != nil || got != want {
			t.Errorf("%s: %+v (%v), want %+v", data, got, err, want)
		}
	}
	got, err := wire.DecodeControl([]byte(`{ "later": 1, "type": "fin" }`))
	if err != nil || got.Type != wire.ControlFin {
		t.Errorf("fin with spaces and an unknown field: %+v, %v", got, err)
	}
}

func TestControl_RejectsMalformedMessages(t *testing.T) {
	for _, text := range []string{
		``, `null`, `[]`, `{"type":"jump"}`, `{"type":"open"}`,
		`{"type":"open","allocation":0,"source":"1.2.3.4:5","destination":"1.2.3.4:5"}`,
		`{"type":"open","allocation":1,"source":"1.2.3.4","destination":"1.2.3.4:5"}`,
		`{"type":"fin","pad":"` + strings.Repeat("x", wire.MaxControl) + `"}`,
	} {
		if _, err := wire.DecodeControl([]byte(text)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%.60s: error %v, want ErrMalformed", text, err)
		}
	}
}

func TestLink_RejectsMalformedMessages(t *testing.T) {
	for _, text := range []string{``, `{"type":"welcome"}`, `{"type":"dial","kind":"unknown","count":1}`, `{"type":"dial","kind":"stream"}`,
		`{"type":"dial","kind":"datagram","count":1}`, `{"type":"dial","kind":"datagram","count":1,"carrier":"a b"}`,
		`{"type":"dial","kind":"datagram","count":1,"carrier":"` + strings.Repeat("A", wire.MaxSessionName+1) + `"}`,
		`{"type":"dial","kind":"datagram","count":1,"carrier":"A","udp":65536}`,
		`{"type":"welcome","secret":"x","carrier":"&"}`,
	} {
		if _, err := wire.DecodeLink([]byte(text)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", text, err)
		}
	}
	if m, err := wire.DecodeLink([]byte(`{"type":"of a later version"}`)); err != nil {
		t.Errorf("a message of another type: %+v, %v", m, err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	var all []byte
	for _, r := range records {
		all = wire.AppendRecord(all, r)
		f.Add(wire.AppendRecord(nil, r))
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, batch []byte) {
		for rest := batch; len(rest) > 0; {
			r, next, err := wire.NextRecord(rest)
			if err != nil {
				return
			}
			if again := wire.AppendRecord(nil, r); !bytes.Equal(again, rest[:len(rest)-len(next)]) {
				t.Fatalf("%x decodes to %+v, which encodes to %x", rest, r, again)
			}
			rest = next
		}
	})
}

func FuzzDecodeControl(f *testing.F) {
	f.Add([]byte(`{"type":"fin"}`))
	f.Add([]byte(`{"type":"open","allocation":1,"source":"1.2.3.4:5","destination":"[::1]:5"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := wire.DecodeControl(text)
		if err != nil {
			return
		}
		data, err := wire.AppendControl(nil, c)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := wire.DecodeControl(data); err != nil || again != c {
			t.Fatalf("%s decodes to %+v, which encodes to %s (%v)", text, c, data, err)
		}
	})
}

func FuzzDecodeLink(f *testing.F) {
	f.Add([]byte(`{"type":"dial","kind":"stream","count":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := wire.DecodeLink(text)
		if err == nil && m.Type == wire.LinkDial && m.Count < 1 {
			t.Fatalf("%s: dial of %d", text, m.Count)
		}
	})
}

func BenchmarkAppendRecord(b *testing.B) {
	r := wire.Record{Kind: wire.RecordDatagram, Flow: 1000, Payload: make([]byte, 200)}
	batch := make([]byte, 0, wire.MaxBatch)
	b.ReportAllocs()
	b.SetBytes(200)
	for b.Loop() {
		if len(batch) >= wire.BatchTarget {
			batch = batch[:0]
		}
		batch = wire.AppendRecord(batch, r)
	}
}

func BenchmarkNextRecord(b *testing.B) {
	var batch []byte
	for len(batch) < wire.BatchTarget {
		batch = wire.AppendRecord(batch, wire.Record{Kind: wire.RecordDatagram, Flow: 1000, Payload: make([]byte, 200)})
	}
	b.ReportAllocs()
	b.SetBytes(200)
	rest := batch
	for b.Loop() {
		if len(rest) == 0 {
			rest = batch
		}
		var err error
		if _, rest, err = wire.NextRecord(rest); err != nil {
			b.Fatal(err)
		}
	}
}
