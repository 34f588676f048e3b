package db

import (
	"context"
	"slices"

	"github.com/lib/pq"
)

// maxPendingTopics bounds the topics of a slow reader. Beyond it, they become All.
const maxPendingTopics = 10_000

// LiveNotice tells that there is something new to read for people who follow it.
type LiveNotice struct {
	// Topics are what it is about, each once, in no order: TopicEvents, and those of other tables, as they define them.
	Topics []string
	// All means that notifications may have been lost: there may be something new of every topic.
	All bool
}

// Has reports whether there may be something new of a topic.
func (n LiveNotice) Has(topic string) bool {
	return n.All || slices.Contains(n.Topics, topic)
}

// ListenLive returns a channel of what any replica has for people from now on. It is like that of [DB.Listen]: it
// merges what its reader has not received yet, sends All after a lost connection, and is closed after ctx ends. It
// takes a connection of its own.
func (d *DB) ListenLive(ctx context.Context) (<-chan LiveNotice, error) {
	listener, err := d.newListener(ctx, liveChannel)
	if err != nil {
		return nil, err
	}
	notices := make(chan LiveNotice)
	go func() {
		defer close(notices)
		d.keepListener(ctx, listener, func() { forwardNotices(ctx, listener.Notify, notices) })
	}()
	return notices, nil
}

// forwardNotices is like forwardEvents.
func forwardNotices(ctx context.Context, notifications <-chan *pq.Notification, notices chan<- LiveNotice) {
	var pending LiveNotice
	has := map[string]struct{}{}
	for {
		var out chan<- LiveNotice
		if pending.All || len(pending.Topics) > 0 {
			out = notices
		}
		select {
		case <-ctx.Done():
			return
		case out <- pending:
			pending = LiveNotice{}
			clear(has)
		case notification := <-notifications:
			switch {
			case pending.All:
			case notification == nil || len(has) == maxPendingTopics: // nil: pq has reconnected.
				pending = LiveNotice{All: true}
				clear(has)
			default:
				if _, ok := has[notification.Extra]; !ok {
					has[notification.Extra] = struct{}{}
					pending.Topics = append(pending.Topics, notification.Extra)
				}
			}
		}
	}
}
