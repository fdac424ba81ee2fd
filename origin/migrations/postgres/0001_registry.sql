-- The schema that metadata/sql.rs describes. Text that is listed compares by bytes: COLLATE "C".

CREATE TABLE repositories (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE blobs (
    digest TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE placements (
    digest TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest),
    location TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (digest, location)
);

CREATE TABLE links (
    repository BIGINT NOT NULL REFERENCES repositories (id),
    digest TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX links_by_digest ON links (digest);

CREATE TABLE manifests (
    repository BIGINT NOT NULL REFERENCES repositories (id),
    digest TEXT COLLATE "C" NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    subject TEXT COLLATE "C",
    artifact_type TEXT,
    annotations TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE manifest_references (
    repository BIGINT NOT NULL,
    manifest TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('blob', 'manifest')),
    target TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (repository, manifest, kind, target),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
);
CREATE INDEX manifest_references_by_target ON manifest_references (target, repository);

-- A deleted tag stays as a row without a digest, so that its version goes on where it was.
CREATE TABLE tags (
    repository BIGINT NOT NULL REFERENCES repositories (id),
    name TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C",
    version BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest)
);
CREATE INDEX tags_by_digest ON tags (repository, digest) WHERE digest IS NOT NULL;
CREATE INDEX tags_alive ON tags (repository, name) WHERE digest IS NOT NULL;

-- By name, not by id: a session is not a push, and must not make the repository exist.
CREATE TABLE uploads (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    repository TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    staged TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    touched_at BIGINT NOT NULL
);
CREATE INDEX uploads_by_touch ON uploads (touched_at);

CREATE TABLE events (
    sequence BIGINT PRIMARY KEY,
    repository TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C",
    tag TEXT COLLATE "C",
    version BIGINT,
    at BIGINT NOT NULL
);

-- Updated by every transaction that writes events: room on the page keeps those updates off the index.
CREATE TABLE feed (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    position BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO feed (id, position) VALUES (1, 0);
