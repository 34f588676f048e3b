package seal_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/seal/sealtest"
)

func keys(t testing.TB) (client, server seal.Keys) {
	t.Helper()
	client, server, err := sealtest.Handshake(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// sealed seals records in a packet.
func sealed(t testing.TB, s *seal.Sealer, records string) []byte {
	t.Helper()
	b := make([]byte, seal.HeaderSize, 2048)
	packet, err := s.Seal(append(b, records...))
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func open(t testing.TB, o *seal.Opener, packet []byte) (string, bool, error) {
	t.Helper()
	records, newest, err := o.Open(bytes.Clone(packet))
	return string(records), newest, err
}

func TestPackets_OpenOnlyAtTheOtherEnd(t *testing.T) {
	suites := []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}
	ours, theirs := keys(t)
	other, _ := keys(t)
	for _, suite := range suites {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			clientSeals, clientOpens := seal.WithSuite(ours, suite).Client()
			serverSeals, serverOpens := seal.WithSuite(theirs, suite).Server()
			otherSeals, otherOpens := seal.WithSuite(other, suite).Server()
			for _, records := range []string{"a", "hello", string(make([]byte, 1400))} {
				up, down := sealed(t, clientSeals, records), sealed(t, serverSeals, records)
				if len(up) != len(records)+seal.Overhead || bytes.Contains(up, []byte("hello")) {
					t.Errorf("a packet of %d bytes for %d, %x", len(up), len(records), up)
				}
				if id, ok := seal.ID(up); !ok || id != theirs.ID {
					t.Errorf("id %x, want %x", id, theirs.ID)
				}
				// Reflected to its sender.
				if _, _, err := open(t, clientOpens, up); !errors.Is(err, seal.ErrForged) {
					t.Errorf("the client opens its own packet: %v", err)
				}
				if _, _, err := open(t, serverOpens, down); !errors.Is(err, seal.ErrForged) {
					t.Errorf("the server opens its own packet: %v", err)
				}
				if _, _, err := open(t, otherOpens, up); !errors.Is(err, seal.ErrForged) {
					t.Errorf("another connection opens it: %v", err)
				}
				foreign := sealed(t, otherSeals, records)
				binary.BigEndian.PutUint64(foreign, ours.ID)
				if _, _, err := open(t, clientOpens, foreign); !errors.Is(err, seal.ErrForged) {
					t.Errorf("another connection's packet opens: %v", err)
				}
				for o, packet := range map[*seal.Opener][]byte{serverOpens: up, clientOpens: down} {
					if got, newest, err := open(t, o, packet); err != nil || got != records || !newest {
						t.Errorf("opened %q, %t, %v", got, newest, err)
					}
					if _, _, err := open(t, o, packet); !errors.Is(err, seal.ErrReplayed) {
						t.Errorf("a second time: %v", err)
					}
				}
			}
		})
	}
}

func TestPackets_DetectEveryChangedBitAndTruncation(t *testing.T) {
	ours, theirs := keys(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	packet := sealed(t, s, "some records")
	for bit := range len(packet) * 8 {
		changed := bytes.Clone(packet)
		changed[bit/8] ^= 1 << (bit % 8)
		if _, _, err := o.Open(changed); !errors.Is(err, seal.ErrForged) {
			t.Fatalf("bit %d changed: %v", bit, err)
		}
	}
	for n := range packet {
		if _, _, err := o.Open(bytes.Clone(packet[:n])); !errors.Is(err, seal.ErrForged) {
			t.Fatalf("truncated to %d bytes: %v", n, err)
		}
	}
	if _, _, err := o.Open(append(bytes.Clone(packet), 0)); !errors.Is(err, seal.ErrForged) {
		t.Errorf("extended by a byte: %v", err)
	}
	// The packet itself is not taken for a replay afterwards.
	if got, newest, err := open(t, o, packet); err != nil || got != "some records" || !newest {
		t.Errorf("the packet itself: %q, %t, %v", got, newest, err)
	}
}

func TestPackets_OutOfOrderOpenOnceWithinTheWindow(t *testing.T) {
	ours, theirs := keys(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	const (
		n = 10_000
		// window is how far behind the highest sequence number a packet opens.
		window = 8128
		// oldest is the oldest packet that opens once all have been tried.
		oldest = n - 1 - window
	)
	packets := make([][]byte, n)
	for i := range packets {
		packets[i] = sealed(t, s, "x")
	}
	opened := make([]int, n)
	try := func(i int) error {
		_, _, err := open(t, o, packets[i])
		if err == nil {
			opened[i]++
		}
		return err
	}
	// Far ahead, then back in steps that reuse every word of the window.
	for _, i := range []int{0, 1, 64, 63, 4096, 2, 4095, 9000, 8999, 9000 - window, n - 1, oldest, oldest - 1} {
		_ = try(i)
		if err := try(i); !errors.Is(err, seal.ErrReplayed) {
			t.Errorf("packet %d a second time: %v", i, err)
		}
	}
	for i := range packets {
		_ = try(i)
	}
	for i, times := range opened {
		if times > 1 || (times == 0 && i >= oldest) {
			t.Errorf("packet %d opened %d times", i, times)
		}
	}
	if opened[3] != 0 || opened[oldest-1] != 0 || opened[oldest] != 1 {
		t.Errorf("packets behind the window opened %d and %d times, at its end %d times", opened[3], opened[oldest-1], opened[oldest])
	}
}

func TestPackets_KeysChangeWithTheEpoch(t *testing.T) {
	const epoch = 1 << 24
	ours, theirs := keys(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	var last []byte
	for _, step := range []struct {
		number uint64
		opens  bool
	}{
		{0, true}, {2 * epoch, false}, {epoch - 2, true}, {epoch + 1, true}, {epoch - 1, true}, {epoch, true},
		{4 * epoch, false}, {1<<64 - 1, false}, {2*epoch + 5, true}, {3 * epoch, true},
	} {
		s.Skip(step.number)
		packet := sealed(t, s, "x")
		if last != nil && bytes.Equal(packet[seal.HeaderSize:], last[seal.HeaderSize:]) {
			t.Errorf("packet %d is encrypted like the one before", step.number)
		}
		last = packet
		if _, _, err := open(t, o, packet); (err == nil) != step.opens {
			t.Errorf("packet %d: %v", step.number, err)
		}
	}
}

// epochSize is how many sequence numbers an epoch has.
const epochSize = 1 << 24

func TestRatchet_WhoStealsAnEndsMemoryCannotReadThePast(t *testing.T) {
	fixedClient, fixedServer := keys(t)
	client, server := sealtest.Ratchet(t)
	for _, test := range []struct {
		name         string
		ours, theirs seal.Keys
		opens        bool
	}{{"with a ratchet", client, server, false}, {"without", fixedClient, fixedServer, true}} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := test.ours.Client()
			_, o := test.theirs.Server()
			var past [][]byte
			for epoch := range uint64(6) {
				s.Skip(epoch * epochSize)
				packet := sealed(t, s, "secret")
				past = append(past, packet)
				if _, newest, err := open(t, o, packet); err != nil || !newest {
					t.Fatalf("epoch %d: %v", epoch, err)
				}
			}
			for epoch, packet := range past[:4] {
				if got, _, err := open(t, o.Stolen(uint64(epoch)), packet); (err == nil) != test.opens {
					t.Errorf("epoch %d: %q, %v", epoch, got, err)
				}
			}
		})
	}
}

func TestRatchet_OpensPacketsOfTheEpochBeforeOnce(t *testing.T) {
	ours, theirs := sealtest.Ratchet(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	for epoch := range uint64(7) {
		if s.Epoch() != epoch {
			t.Fatalf("epoch %d in place of %d", s.Epoch(), epoch)
		}
		early, late := sealed(t, s, "early"), sealed(t, s, "late")
		s.NextEpoch()
		next := sealed(t, s, "next")
		for _, step := range []struct {
			packet []byte
			newest bool
		}{{early, true}, {next, true}, {late, false}} {
			if _, newest, err := open(t, o, step.packet); err != nil || newest != step.newest {
				t.Fatalf("epoch %d: newest %t, %v", epoch, newest, err)
			}
			if _, _, err := open(t, o, step.packet); !errors.Is(err, seal.ErrReplayed) {
				t.Fatalf("epoch %d, a second time: %v", epoch, err)
			}
		}
	}
}

func TestRatchet_AcceptsTheEpochBeforeNoLongerThanItsWindow(t *testing.T) {
	ours, theirs := sealtest.Ratchet(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	held, late := sealed(t, s, "held back"), sealed(t, s, "late")
	s.NextEpoch()
	for n := range 8129 {
		if _, _, err := open(t, o, sealed(t, s, "x")); err != nil {
			t.Fatal(err)
		}
		if n == 8127 {
			if _, _, err := open(t, o, late); err != nil {
				t.Errorf("a late packet: %v", err)
			}
		}
	}
	if _, _, err := open(t, o, held); !errors.Is(err, seal.ErrReplayed) {
		t.Errorf("a packet that was held back for longer: %v", err)
	}
}

func TestRatchet_ForgedPacketsDoNotTurnIt(t *testing.T) {
	ours, theirs := sealtest.Ratchet(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	for epoch := range uint64(5) {
		genuine := sealed(t, s, "genuine")
		for ahead := range uint64(5) {
			forged := bytes.Clone(genuine)
			binary.BigEndian.PutUint64(forged[8:], (epoch+ahead)*epochSize+1)
			if _, _, err := open(t, o, forged); err == nil {
				t.Fatal("a forged packet opens")
			}
		}
		if _, newest, err := open(t, o, genuine); err != nil || !newest {
			t.Fatalf("epoch %d after forged packets: %v", epoch, err)
		}
		s.NextEpoch()
	}
	s.NextEpoch()
	if _, _, err := open(t, o, sealed(t, s, "x")); !errors.Is(err, seal.ErrForged) {
		t.Errorf("an epoch that was skipped: %v", err)
	}
}

func TestRatchet_EndsWithoutOneSkipNoEpoch(t *testing.T) {
	ours, _ := keys(t)
	s, _ := ours.Client()
	if s.NextEpoch(); s.Epoch() != 0 {
		t.Errorf("epoch %d", s.Epoch())
	}
}

func TestExport_NeedsTLS13AndDiffersByConnection(t *testing.T) {
	if _, _, err := sealtest.Handshake(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err == nil {
		t.Error("keys of TLS 1.2")
	}
	one, other := keys(t)
	another, _ := keys(t)
	if one != other || one == another || one.ID == another.ID {
		t.Errorf("ids %x, %x at the other end, %x of another connection", one.ID, other.ID, another.ID)
	}
}

func TestPackets_DoNotAllocate(t *testing.T) {
	ours, theirs := keys(t)
	s, _ := ours.Client()
	_, o := theirs.Server()
	b := make([]byte, 2048)
	if n := testing.AllocsPerRun(1000, func() {
		packet, err := s.Seal(b[:seal.HeaderSize+200])
		if err == nil {
			_, _, err = o.Open(packet)
		}
		if err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func FuzzOpen(f *testing.F) {
	ours, theirs := keys(f)
	s, _ := ours.Client()
	f.Add(sealed(f, s, "some records"), uint64(0))
	f.Add([]byte{}, uint64(1))
	fixed, fixedServer := ours, theirs
	ratchet, ratchetServer := sealtest.Ratchet(f)
	f.Fuzz(func(t *testing.T, packet []byte, skip uint64) {
		for _, ends := range [][2]seal.Keys{{fixed, fixedServer}, {ratchet, ratchetServer}} {
			fuzzOpen(t, ends[0], ends[1], packet, skip)
		}
	})
}

func fuzzOpen(t *testing.T, ours, theirs seal.Keys, packet []byte, skip uint64) {
	t.Helper()
	s, _ := ours.Client()
	_, o := theirs.Server()
	for _, p := range [][]byte{packet, append(binary.BigEndian.AppendUint64(nil, ours.ID), packet...)} {
		if records, _, err := o.Open(bytes.Clone(p)); err == nil {
			// Only the seed was sealed by the other end.
			if s.Skip(0); !bytes.Equal(sealed(t, s, string(records)), p) {
				t.Fatalf("%x opens to %x", p, records)
			}
		}
	}
	// What was tried does not affect a genuine packet.
	s.Skip(skip % (2 * epochSize))
	genuine := sealed(t, s, "x")
	if bytes.Equal(genuine[:seal.HeaderSize], packet[:min(len(packet), seal.HeaderSize)]) {
		return // The seed's sequence number.
	}
	if _, _, err := o.Open(genuine); err != nil {
		t.Fatalf("packet %d: %v", skip, err)
	}
}

func BenchmarkSeal(b *testing.B) {
	ours, _ := keys(b)
	s, _ := ours.Client()
	packet := make([]byte, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Seal(packet[:seal.HeaderSize+1200]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	ours, theirs := keys(b)
	s, _ := ours.Client()
	_, o := theirs.Server()
	packet := make([]byte, 2048)
	b.ReportAllocs()
	for b.Loop() {
		p, err := s.Seal(packet[:seal.HeaderSize+1200])
		if err == nil {
			_, _, err = o.Open(p)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
