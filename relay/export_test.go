package relay

// SourceOf is sourceOf, for tests.
var SourceOf = sourceOf
