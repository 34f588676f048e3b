package controlclient

import (
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Usage are reports of usage in the order in which they are sent. Its methods are called
// with a lock held, and must not call the Client.
type Usage interface {
	// Next returns the first report that is not stored, as of a time; nil: there is none. It
	// returns the same one until Stored was called with it.
	Next(now time.Time) *types.UsageReport
	// Stored notes that the panel has stored a report, which may be an earlier one.
	Stored(types.UsageAck)
}

// ReportUsage sends the next report of usage, once the one before it is stored. To be
// called about once a second. Without a channel, and if the panel takes no usage, it does
// nothing. A report whose channel ends before the panel has acknowledged it is sent again
// on the next one.
func (c *Client[State, S, C]) ReportUsage(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reportUsage(now)
}

// reportUsage is called with mu held.
func (c *Client[State, S, C]) reportUsage(now time.Time) {
	if c.opts.Usage == nil || c.conn == nil || !c.sent.takesUsage || c.sent.awaitsStored {
		return
	}
	if report := c.opts.Usage.Next(now); report != nil {
		// An error means that the channel has ended.
		c.sent.awaitsStored = c.conn.Send(report) == nil
	}
}

func (c *Client[State, S, C]) usageStored(m types.UsageAck) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opts.Usage != nil {
		c.opts.Usage.Stored(m)
		c.sent.awaitsStored = false
		c.reportUsage(time.Now())
	}
}

// TakesUsage reports whether there is a channel on which ReportUsage reports.
func (c *Client[State, S, C]) TakesUsage() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opts.Usage != nil && c.conn != nil && c.sent.takesUsage
}
