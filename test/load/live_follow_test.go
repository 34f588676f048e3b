//go:build linux

package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
)

const (
	// eventMedian is how long after a change half of those who follow it have its event.
	eventMedian = 300 * time.Millisecond
	// streamsEach is how many streams an account has on a replica.
	streamsEach  = 20
	eventChanges = 20
	eventPause   = 500 * time.Millisecond
)

// followers read streams of events.
type followers struct {
	client *http.Client

	mu      sync.Mutex
	ready   int
	changed map[string]time.Time // When a device was given a name.
	took    []time.Duration      // From then until somebody had the event.
	others  int                  // Other events.
	failed  error                // Why a stream has ended.
}

// follow opens streams of events on the replicas, and measures how long after a change
// they have its event.
func follow(t *testing.T, database *postgres, replicas []*replica, subscribers int, change func(name string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s := &followers{client: &http.Client{Transport: transport}, changed: map[string]time.Time{}}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	var key string
	for i := range subscribers {
		if i%(streamsEach*len(replicas)) == 0 {
			key = newMember(t, database, i)
		}
		reading.Go(func() { s.read(ctx, replicas[i%len(replicas)].url, key) })
	}
	await.Within(t, patience, "stream for every subscriber", func(context.Context) (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.ready == subscribers, s.failed
	})
	ticker := time.NewTicker(eventPause)
	defer ticker.Stop()
	for i := range eventChanges {
		<-ticker.C
		name := fmt.Sprintf("rig-%d", i)
		s.mu.Lock()
		s.changed[name] = time.Now()
		s.mu.Unlock()
		change(name)
	}
	await.Within(t, patience, "every event at every subscriber", func(context.Context) (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.took) == subscribers*eventChanges, s.failed
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.took)
	median := s.took[len(s.took)/2]
	t.Logf("%d subscribers on %d replicas: events %v after the change in the median, p99 %v, worst %v; %d other events",
		subscribers, len(replicas), median.Round(time.Millisecond), s.took[len(s.took)*99/100].Round(time.Millisecond),
		s.took[len(s.took)-1].Round(time.Millisecond), s.others)
	if median > eventMedian {
		t.Errorf("half of the events took more than %v, want %v", median, eventMedian)
	}
}

// read reads a stream until ctx ends.
func (s *followers) read(ctx context.Context, url, key string) {
	err := s.stream(ctx, url, key)
	if ctx.Err() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = fmt.Errorf("stream of %s ended: %w", url, err)
	}
}

func (s *followers) stream(ctx context.Context, url, key string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", key)
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for name := ""; lines.Scan(); {
		if event, ok := strings.CutPrefix(lines.Text(), "event:"); ok {
			name = strings.TrimSpace(event)
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			if err := s.note(name, data); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%s: %w", resp.Status, lines.Err())
}

// note takes an event.
func (s *followers) note(name, data string) error {
	now := time.Now()
	var event struct{ Device struct{ Name string } }
	if name == "device.updated" {
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch at, ok := s.changed[event.Device.Name]; {
	case name == "ready":
		s.ready++
	case name == "resync":
		return fmt.Errorf("events are missing: %s", data)
	case ok:
		s.took = append(s.took, now.Sub(at))
	default:
		s.others++
	}
	return nil
}

// newMember adds a member to the organisation, and returns a key that acts as them.
func newMember(t *testing.T, database *postgres, number int) string {
	t.Helper()
	text := fmt.Sprintf("etk_%033d", number)
	sum := big.NewInt(int64(crc32.ChecksumIEEE([]byte(text)))).Text(62)
	text += strings.Repeat("0", 6-len(sum)) + sum
	_, err := database.Query(t.Context(), fmt.Sprintf(`
		WITH member AS (INSERT INTO users (email, password_hash, role) VALUES ('member%d@example.com', '', 'user') RETURNING id),
		joined AS (INSERT INTO organisation_members (organisation_id, user_id, role) SELECT o.id, m.id, 'member' FROM organisations o, member m)
		INSERT INTO api_keys (user_id, name, prefix, hash, scopes, created_at)
			SELECT id, 'follow', left('%[2]s', 12), sha256('%[2]s'), ARRAY['read'], now() FROM member`, number, text))
	check(t, err)
	return text
}
