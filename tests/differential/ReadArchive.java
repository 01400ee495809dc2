import java.util.List;
import org.pytorch.serve.archive.model.ModelArchive;

/**
 * Reads an archive with the classes of TorchServe's frontend, as its registration does, and prints one line per fact.
 *
 * <p>Arguments: the model store, the archive: a name in the store, or the absolute path of a folder.
 */
public class ReadArchive {
    public static void main(String[] args) throws Exception {
        ModelArchive archive = ModelArchive.downloadModel(List.of("file://.*"), args[0], args[1]);
        archive.validate();
        System.out.println("name=" + archive.getModelName());
        System.out.println("version=" + archive.getModelVersion());
        System.out.println("handler=" + archive.getHandler());
        System.out.println("directory=" + archive.getModelDir());
    }
}
