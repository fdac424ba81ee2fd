-- The schema that metadata/sql.rs describes. Text compares by bytes: SQLite's default.

CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE placements (
    digest TEXT NOT NULL REFERENCES blobs (digest),
    location TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (digest, location)
) WITHOUT ROWID;

CREATE TABLE links (
    repository BIGINT NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL REFERENCES blobs (digest),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest);

-- Not WITHOUT ROWID: bodies are too large for the inner pages of a primary key.
CREATE TABLE manifests (
    repository BIGINT NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE manifest_references (
    repository BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('blob', 'manifest')),
    target TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, kind, target),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX manifest_references_by_target ON manifest_references (target, repository);

-- A deleted tag stays as a row without a digest, so that its version goes on where it was.
CREATE TABLE tags (
    repository BIGINT NOT NULL REFERENCES repositories (id),
    name TEXT NOT NULL,
    digest TEXT,
    version BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest)
) WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest) WHERE digest IS NOT NULL;
CREATE INDEX tags_alive ON tags (repository, name) WHERE digest IS NOT NULL;

-- By name, not by id: a session is not a push, and must not make the repository exist.
CREATE TABLE uploads (
    id TEXT NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    revision BIGINT NOT NULL,
    staged TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    touched_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_touch ON uploads (touched_at);

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    repository TEXT NOT NULL,
    kind TEXT NOT NULL,
    digest TEXT,
    tag TEXT,
    version BIGINT,
    at BIGINT NOT NULL
);

CREATE TABLE feed (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position BIGINT NOT NULL
);
INSERT INTO feed (id, position) VALUES (1, 0);
