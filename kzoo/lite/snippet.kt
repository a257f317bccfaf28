// Classifies bitmaps with $file (SHA-256 $sha256).
// Written by kzoo $version for this file alone. It takes $width x $height pixels, $input_dtype.
//
// build.gradle.kts of the app:
//     dependencies { implementation("com.google.ai.edge.litert:litert:$litert") }
// The .tflite goes into the app's src/main/assets; put your package's name on top of this file.
//
// Interpreter of LiteRT $litert, on the CPU: it takes buffers of every dtype, CompiledModel's for
// Kotlin have no uint8 (https://ai.google.dev/edge/litert/android).

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt
import org.tensorflow.lite.Interpreter

/** One thread at a time may use it. */
class $name(context: Context, threads: Int = 2) : AutoCloseable {
    data class Guess(val name: String, val probability: Float)

    private val interpreter =
        Interpreter(
            context.assets.open($asset).use { it.readBytes() }.let {
                buffer(it.size).put(it)
            },
            Interpreter.Options().setNumThreads(threads),
        )
    private val input = buffer($input_bytes)
    private val output = buffer($output_bytes)

    /** The most probable classes of an upright ARGB_8888 bitmap, the first the surest. */
    fun classify(bitmap: Bitmap, top: Int = 5): List<Guess> {
        val found = probabilities(bitmap)
        val order = found.indices.sortedByDescending { found[it] }
        return order.take(top).map { Guess(CLASSES[it], found[it]) }
    }

    /** The probability of each class, in the order of [CLASSES]. */
    fun probabilities(bitmap: Bitmap): FloatArray {
        val pixels =
            resized(bitmap.width, bitmap.height) { y, row ->
                bitmap.getPixels(row, 0, bitmap.width, 0, y, bitmap.width, 1)
            }
        input.clear()
        for (value in pixels) $encoded
        input.rewind()
        output.clear()
        interpreter.run(input, output)
        output.rewind()
        val values = FloatArray($count) { $value }$softmax
        return values
    }

    override fun close() = interpreter.close()

    companion object {
        const val HEIGHT = $height
        const val WIDTH = $width
        const val CHANNELS = $channels
        val CLASSES: List<String> = $classes

        private fun buffer(size: Int): ByteBuffer =
            ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

        /**
         * The middle of an image, scaled so that it covers $covered_width x $covered_height:
         * each pixel is the mean of all those under it, weighted by a triangle, as in training.
         *
         * @param read fills in a row of ARGB pixels.
         * @return HEIGHT x WIDTH x CHANNELS values from 0 to 255, row by row.
         */
        fun resized(width: Int, height: Int, read: (Int, IntArray) -> Unit): IntArray {
            val scale = min(width / $covered_width.0, height / $covered_height.0)
            val across = weights(width, scale, $covered_width, WIDTH)
            val down = weights(height, scale, $covered_height, HEIGHT)
            val sums = Array(HEIGHT) { DoubleArray(WIDTH * CHANNELS) }
            val row = IntArray(width)
            val narrow = DoubleArray(WIDTH * CHANNELS)
            for (y in down.first().first until down.last().let { it.first + it.second.size }) {
                read(y, row)
                narrow.fill(0.0)
                for (x in 0 until WIDTH) {
                    val (start, parts) = across[x]
                    for (i in parts.indices) add(row[start + i], parts[i], narrow, CHANNELS * x)
                }
                for (i in 0 until HEIGHT) {
                    val (start, parts) = down[i]
                    if (y < start || y >= start + parts.size) continue
                    for (j in narrow.indices) sums[i][j] += parts[y - start] * narrow[j]
                }
            }
            return IntArray(HEIGHT * narrow.size) {
                sums[it / narrow.size][it % narrow.size].roundToInt().coerceIn(0, 255)
            }
        }

        /** Adds a share of a pixel, over white where it is transparent, to [sums] from [at] on. */
        private fun add(argb: Int, share: Double, sums: DoubleArray, at: Int) {
            val alpha = argb ushr 24
            val white = share * (255 - alpha)
            val shown = share * alpha / 255
            val red = shown * (argb shr 16 and 255) + white
            val green = shown * (argb shr 8 and 255) + white
            val blue = shown * (argb and 255) + white
$added
        }

        /** For each of [shown] outputs in the middle of [covered], the first input and the weights. */
        private fun weights(
            size: Int,
            scale: Double,
            covered: Int,
            shown: Int,
        ): List<Pair<Int, DoubleArray>> {
            val reach = max(scale, 1.0)
            return List(shown) {
                val centre = size / 2.0 + ((covered - shown) / 2 + it + 0.5 - covered / 2.0) * scale
                val first = max(0, (centre - reach + 0.5).toInt())
                val last = min(size, (centre + reach + 0.5).toInt())
                val parts = DoubleArray(last - first) { i ->
                    max(0.0, 1.0 - abs((first + i + 0.5 - centre) / reach))
                }
                val sum = parts.sum()
                Pair(first, DoubleArray(parts.size) { i -> parts[i] / sum })
            }
        }
    }
}
